//! Antialiased shapes on an RGB24 picture: ellipses, tapered strokes, convex polygons.
//!
//! Only `+ − × ÷ √` on `f32`, so that every architecture draws the same bytes.

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

/// A vertical gradient and its opacity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    top: Colour,
    bottom: Colour,
    /// 0 to 256.
    opacity: i32,
}

impl Paint {
    /// `colour`, lit from above: a little brighter at the top of the shape, darker at its bottom.
    pub(super) fn lit(colour: Colour) -> Self {
        Self::gradient(scaled(colour, 1.12), scaled(colour, 0.82))
    }

    pub(super) fn flat(colour: Colour) -> Self {
        Self::gradient(colour, colour)
    }

    pub(super) fn gradient(top: Colour, bottom: Colour) -> Self {
        Self {
            top,
            bottom,
            opacity: 256,
        }
    }

    /// The same paint, seen through: `opacity` is 0 to 1.
    pub(super) fn see_through(self, opacity: f32) -> Self {
        Self {
            opacity: (opacity * 256.0) as i32,
            ..self
        }
    }
}

/// A colour made brighter or darker.
pub(super) fn scaled(colour: Colour, factor: f32) -> Colour {
    colour.map(|c| (c as f32 * factor) as u8)
}

/// `[x0, y0, x1, y1]`.
pub(super) type Rect = [f32; 4];

/// Where shapes are drawn, in a unit of their own.
#[derive(Debug)]
pub(super) struct Canvas<'a> {
    pixels: &'a mut [u8],
    width: usize,
    height: usize,
    origin: (f32, f32),
    scale: f32,
    /// 1 or −1: towards the left.
    facing: f32,
    /// In pixels; what was drawn since the view was set, also beyond the picture's edges.
    bounds: Option<Rect>,
}

impl<'a> Canvas<'a> {
    /// A canvas over `width × height` RGB24 pixels; one unit is a picture height, the origin is the top left.
    pub(super) fn new(pixels: &'a mut [u8], width: usize, height: usize) -> Self {
        Self {
            pixels,
            width,
            height,
            origin: (0.0, 0.0),
            scale: height as f32,
            facing: 1.0,
            bounds: None,
        }
    }

    /// Draws from now on around `(x, y)` (in picture heights), one unit being `size` picture heights,
    /// x mirrored if `facing` is −1. Forgets the bounds.
    pub(super) fn place(&mut self, x: f32, y: f32, size: f32, facing: f32) {
        let h = self.height as f32;
        self.origin = (x * h, y * h);
        self.scale = size * h;
        self.facing = facing;
        self.bounds = None;
    }

    /// What was drawn since the last [`Canvas::place`]: pixels, not clipped to the picture.
    pub(super) fn bounds(&self) -> Option<Rect> {
        self.bounds
    }

    /// An ellipse around `(x, y)`.
    pub(super) fn ellipse(&mut self, (x, y): (f32, f32), (rx, ry): (f32, f32), paint: Paint) {
        let (cx, cy) = self.point(x, y);
        let (rx, ry) = (rx * self.scale, ry * self.scale);
        let (ix, iy, r) = (1.0 / rx, 1.0 / ry, rx.min(ry) * 0.5);
        let area = [cx - rx, cy - ry, cx + rx, cy + ry];
        self.fill(area, paint, |px, py| {
            let (u, v) = ((px - cx) * ix, (py - cy) * iy);
            (u * u + v * v - 1.0) * r
        });
    }

    /// A stroke from `a` to `b` with round ends, `ra` thick at `a` and `rb` at `b` (radii).
    pub(super) fn stroke(&mut self, a: (f32, f32), b: (f32, f32), ra: f32, rb: f32, paint: Paint) {
        let (ax, ay) = self.point(a.0, a.1);
        let (bx, by) = self.point(b.0, b.1);
        let (ra, rb) = (ra * self.scale, rb * self.scale);
        let (dx, dy) = (bx - ax, by - ay);
        let per_length = 1.0 / (dx * dx + dy * dy).max(1e-6);
        let area = [
            (ax - ra).min(bx - rb),
            (ay - ra).min(by - rb),
            (ax + ra).max(bx + rb),
            (ay + ra).max(by + rb),
        ];
        self.fill(area, paint, |px, py| {
            let (ux, uy) = (px - ax, py - ay);
            let t = ((ux * dx + uy * dy) * per_length).clamp(0.0, 1.0);
            let (ex, ey) = (ux - t * dx, uy - t * dy);
            let r = ra + t * (rb - ra);
            (ex * ex + ey * ey - r * r) / (2.0 * r)
        });
    }

    /// A convex polygon of 3 to 8 corners, in either direction.
    pub(super) fn polygon(&mut self, corners: &[(f32, f32)], paint: Paint) {
        let n = corners.len().min(8);
        let mut p = [(0.0, 0.0); 8];
        let mut area = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
        for (to, &(x, y)) in p.iter_mut().zip(corners) {
            *to = self.point(x, y);
            area = [
                area[0].min(to.0),
                area[1].min(to.1),
                area[2].max(to.0),
                area[3].max(to.1),
            ];
        }
        let turn: f32 = (0..n)
            .map(|i| {
                let ((x0, y0), (x1, y1)) = (p[i], p[(i + 1) % n]);
                x0 * y1 - x1 * y0
            })
            .sum();
        let sign = if turn < 0.0 { -1.0 } else { 1.0 };
        // Half planes: signed distance = x·nx + y·ny + c, positive outside.
        let mut edges = [(0.0, 0.0, 0.0); 8];
        for i in 0..n {
            let ((x0, y0), (x1, y1)) = (p[i], p[(i + 1) % n]);
            let (ex, ey) = (x1 - x0, y1 - y0);
            let length = (ex * ex + ey * ey).sqrt().max(1e-6);
            let (nx, ny) = (sign * ey / length, -sign * ex / length);
            edges[i] = (nx, ny, -(nx * x0 + ny * y0));
        }
        self.fill(area, paint, |px, py| {
            edges[..n]
                .iter()
                .fold(f32::MIN, |d, (nx, ny, c)| d.max(px * nx + py * ny + c))
        });
    }

    /// An upright rectangle from `(x0, y0)` to `(x1, y1)`.
    pub(super) fn rect(&mut self, [x0, y0, x1, y1]: Rect, paint: Paint) {
        self.polygon(&[(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint);
    }

    /// Adds to each pixel between the rows `y0` and `y1` (in picture heights) what `light(x, y)` says.
    pub(super) fn shade(&mut self, y0: f32, y1: f32, mut light: impl FnMut(usize, usize) -> i32) {
        let rows = pixel_range(
            y0 * self.height as f32,
            y1 * self.height as f32,
            self.height,
        );
        for y in rows {
            let row = &mut self.pixels[y * self.width * 3..(y + 1) * self.width * 3];
            for (x, px) in row.chunks_exact_mut(3).enumerate() {
                let d = light(x, y);
                px.iter_mut()
                    .for_each(|c| *c = (*c as i32 + d).clamp(0, 255) as u8);
            }
        }
    }

    fn point(&self, x: f32, y: f32) -> (f32, f32) {
        (
            self.origin.0 + x * self.scale * self.facing,
            self.origin.1 + y * self.scale,
        )
    }

    /// Blends `paint` into the pixels of `area`, by their distance (in pixels, negative inside) to the shape's edge.
    fn fill(&mut self, area: Rect, paint: Paint, distance: impl Fn(f32, f32) -> f32) {
        self.bounds = Some(self.bounds.map_or(area, |b| {
            [
                b[0].min(area[0]),
                b[1].min(area[1]),
                b[2].max(area[2]),
                b[3].max(area[3]),
            ]
        }));
        let columns = pixel_range(area[0] - 1.0, area[2] + 1.0, self.width);
        let rows = pixel_range(area[1] - 1.0, area[3] + 1.0, self.height);
        let per_height = 1.0 / (area[3] - area[1]).max(1.0);
        for y in rows {
            let py = y as f32 + 0.5;
            let t = ((py - area[1]) * per_height).clamp(0.0, 1.0);
            let colour: [i32; 3] = std::array::from_fn(|c| {
                let (a, b) = (paint.top[c] as f32, paint.bottom[c] as f32);
                (a + (b - a) * t) as i32
            });
            let row = &mut self.pixels[(y * self.width + columns.start) * 3..][..columns.len() * 3];
            for (x, px) in columns.clone().zip(row.chunks_exact_mut(3)) {
                let cover = (0.5 - distance(x as f32 + 0.5, py)).clamp(0.0, 1.0);
                let alpha = (cover * paint.opacity as f32) as i32;
                if alpha > 0 {
                    for (p, c) in px.iter_mut().zip(colour) {
                        *p = (*p as i32 + (((c - *p as i32) * alpha) >> 8)) as u8;
                    }
                }
            }
        }
    }
}

/// The pixels whose centres may lie between `low` and `high`, of `0..size`.
fn pixel_range(low: f32, high: f32, size: usize) -> std::ops::Range<usize> {
    let start = (low.max(0.0) as usize).min(size);
    let end = (high.max(0.0) as usize + 1).min(size);
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lit_area(draw: impl Fn(&mut Canvas)) -> (f32, Option<Rect>) {
        let mut pixels = vec![0; 100 * 100 * 3];
        let mut canvas = Canvas::new(&mut pixels, 100, 100);
        draw(&mut canvas);
        let bounds = canvas.bounds();
        let sum: u32 = pixels.iter().map(|p| *p as u32).sum();
        (sum as f32 / 3.0 / 255.0, bounds)
    }

    #[test]
    fn shapes_cover_their_area() {
        let white = Paint::flat([255; 3]);
        let circle = lit_area(|c| c.ellipse((0.5, 0.5), (0.2, 0.2), white)).0;
        assert!((circle - 1256.6).abs() < 15.0, "{circle}");
        let bar = lit_area(|c| c.rect([0.1, 0.2, 0.6, 0.4], white)).0;
        assert!((bar - 1000.0).abs() < 15.0, "{bar}");
        let stroke = lit_area(|c| c.stroke((0.3, 0.5), (0.7, 0.5), 0.1, 0.1, white)).0;
        assert!((stroke - (800.0 + 314.0)).abs() < 15.0, "{stroke}");
    }

    #[test]
    fn what_lies_outside_is_clipped_but_counted_in_the_bounds() {
        let white = Paint::flat([255; 3]);
        let (half, bounds) = lit_area(|c| c.rect([-0.5, 0.0, 0.5, 1.0], white));
        assert!((half - 5000.0).abs() < 60.0, "{half}");
        assert_eq!(bounds, Some([-50.0, 0.0, 50.0, 100.0]));
        assert_eq!(
            lit_area(|c| c.ellipse((9.0, -9.0), (0.2, 0.2), white)).0,
            0.0
        );
    }
}

//! Tiles: the innermost loops, one file an instruction set. A tile multiplies a few rows (output pixels) of activations,
//! contiguous in k, by a panel of packed weights (output channels), and writes bytes or sums.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512vnni;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_dot;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_i8mm;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_write;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod split;

use super::{Quantization, Residual};

/// The innermost loop for one instruction set.
///
/// # Safety
///
/// `run` reads and writes just what [`Call`] says, and computes for every row r < `rows` and column c
/// `bias[r][c] + Σ a[r][k] · w[c][k]`, wrapping, from a panel that `pack` of the same type made.
pub(super) unsafe trait Tile {
    /// Rows (pixels) at most.
    const ROWS: usize;
    /// Columns (channels) of a panel.
    const COLUMNS: usize;
    /// A row is read up to its depth rounded up to this many bytes.
    const BLOCK: usize;

    /// Packs the weights of [`Tile::COLUMNS`] channels, one channel after the other, each `depth` weights: a multiple of
    /// [`Tile::BLOCK`].
    fn pack(depth: usize, weights: &[i8]) -> Panel;

    /// Computes a tile.
    ///
    /// # Safety
    ///
    /// The processor has the instruction set, and the pointers of `call` are good for what [`Call`] says.
    unsafe fn run(call: &Call);
}

/// Packed weights of [`Tile::COLUMNS`] channels.
#[derive(Clone, Debug, Default)]
pub(super) struct Panel {
    pub weights: Vec<i8>,
    /// Where in a row each block of weights finds its activations, for the tiles that do not just run along the row.
    pub offsets: Vec<u32>,
}

impl Panel {
    /// Blocks of bytes of k, column after column: `[k / BLOCK][column][BLOCK]`. A multiple of BLOCK is asked for.
    fn interleaved<const BLOCK: usize>(depth: usize, weights: &[i8]) -> Self {
        let columns: Vec<_> = weights
            .chunks_exact(depth)
            .map(|c| c.as_chunks().0)
            .collect();
        let mut packed: Vec<[i8; BLOCK]> = Vec::with_capacity(weights.len() / BLOCK);
        for k in 0..depth / BLOCK {
            packed.extend(columns.iter().map(|column| column[k]));
        }
        Self {
            weights: packed.into_flattened(),
            offsets: Vec::new(),
        }
    }
}

/// The operands of a tile.
pub(super) struct Call<'a> {
    /// The first row; each row is good for the depth rounded up to [`Tile::BLOCK`].
    pub a: *const u8,
    /// Bytes from one row to the next.
    pub a_stride: usize,
    /// 1 to [`Tile::ROWS`].
    pub rows: usize,
    /// Products summed, rounded up to [`Tile::BLOCK`].
    pub depth: usize,
    /// The panel, at an address that is a multiple of 64.
    pub weights: *const i8,
    pub offsets: &'a [u32],
    /// [`Tile::COLUMNS`] of them for the first row.
    pub bias: *const i32,
    /// From one row's to the next row's; 0 where all rows have the same.
    pub bias_stride: usize,
    pub target: Target<'a>,
}

impl Call<'_> {
    /// # Safety
    ///
    /// The tile has that row.
    #[inline(always)]
    unsafe fn bias_of(&self, row: usize) -> *const i32 {
        // SAFETY: as the caller says.
        unsafe { self.bias.add(row * self.bias_stride) }
    }
}

/// What a tile writes.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// Quantized numbers.
    Bytes(Bytes<'a>),
    /// The sums: [`Tile::COLUMNS`] a row, the rows one after the other.
    Sums(*mut i32),
}

/// Where and how quantized numbers are written.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    /// The first row, good for `columns` bytes each row.
    pub out: *mut u8,
    /// Bytes from one row to the next, of `out` and of `residual`.
    pub stride: usize,
    /// 1 to [`Tile::COLUMNS`].
    pub columns: usize,
    /// [`Tile::COLUMNS`] of them.
    pub multipliers: *const f32,
    pub quantization: Quantization,
    /// The other operand's first row, laid out like `out`, and the addition.
    pub residual: Option<(*const u8, &'a Residual)>,
}

impl Bytes<'_> {
    /// The same without the rows before `row`.
    ///
    /// # Safety
    ///
    /// The tile has that row.
    #[cfg(target_arch = "aarch64")]
    unsafe fn from_row(&self, row: usize) -> Self {
        let skip = row * self.stride;
        // SAFETY: the row is within `out`, and within the residual.
        unsafe {
            Self {
                out: self.out.add(skip),
                residual: self
                    .residual
                    .map(|(other, residual)| (other.add(skip), residual)),
                ..*self
            }
        }
    }
}

/// Runs `$tile::<ROWS>($call)`, or `$tile::<ROWS, $more>($call)`, for the rows of the call.
macro_rules! dispatch_rows {
    ($tile:ident $(, $more:ident)?; $call:ident, $($rows:literal)*) => { dispatch_rows!(@ [$tile] [$($more)?] $call, $($rows)*) };
    (@ [$tile:ident] $more:tt $call:ident, $($rows:literal)*) => {
        match $call.rows {
            $($rows => dispatch_rows!(@call $tile $rows $more $call),)*
            _ => unreachable!("a tile of {} rows", $call.rows),
        }
    };
    // SAFETY: handed on to the caller of the tile.
    (@call $tile:ident $rows:literal [] $call:ident) => { unsafe { $tile::<$rows>($call) } };
    // SAFETY: handed on to the caller of the tile.
    (@call $tile:ident $rows:literal [$more:ident] $call:ident) => { unsafe { $tile::<$rows, $more>($call) } };
}
pub(super) use dispatch_rows;

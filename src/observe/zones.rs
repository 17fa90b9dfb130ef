//! Zones and lines: who enters, stays, leaves and crosses, and how many did.
//!
//! In: the tracked things of each frame, and the tracks that ended. Out: events and counts by class. Pure; time is that of the frames.
//! Always holds: the same frames give the same events; `now` is `entered` less `left`; each `leave` has its `enter`; a thing that
//! jitters on an edge makes no events: it must be found on the other side of a zone's edge twice in a row, and of a line at a distance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::track::Seen;
use crate::frame::mask::{check_polygon, winds_around};
use crate::task::detect::BBox;

/// Zones and lines of one camera at most, together.
pub const MAX_PLACES: usize = 64;
/// Looks in a row that must agree.
const LOOKS: u32 = 2;
/// A thing is on one side of a line if it is so far from it, in parts of the frame.
const MARGIN: f64 = 0.01;

/// Which point of a box is where the thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anchor {
    /// The middle of its lower edge: where a person stands.
    #[default]
    Bottom,
    /// Its middle: seen from above.
    Centre,
}

impl Anchor {
    fn of(self, b: &BBox) -> [f64; 2] {
        let (x, y) = b.centre();
        let y = match self {
            Self::Bottom => b.y1,
            Self::Centre => y,
        };
        [x, y].map(f64::from)
    }
}

/// `[[camera.zone]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneSettings {
    /// Its name in messages.
    pub id: String,
    /// Points `[x, y]`, 0 to 1 of the picture.
    pub polygon: Vec<[f64; 2]>,
    /// The classes that count; all if empty.
    pub labels: Vec<String>,
    /// Which point of a box is where the thing is.
    pub anchor: Anchor,
    /// Who stays so many seconds dwells; 0: nobody does.
    pub dwell_s: f64,
}

/// `[[camera.line]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineSettings {
    /// Its name in messages.
    pub id: String,
    /// Where it begins: `[x, y]`, 0 to 1 of the picture.
    pub from: Option<[f64; 2]>,
    /// Where it ends.
    pub to: Option<[f64; 2]>,
    /// The classes that count; all if empty.
    pub labels: Vec<String>,
    /// Which point of a box is where the thing is.
    pub anchor: Anchor,
}

impl ZoneSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(why) = check_polygon(&self.polygon) {
            problems.push(("polygon", why));
        }
        if !(0.0..=86_400.0).contains(&self.dwell_s) {
            let message = format!("{} is not between 0 and 86400", self.dwell_s);
            problems.push(("dwell_s", message));
        }
        problems
    }
}

impl LineSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, point) in [("from", self.from), ("to", self.to)] {
            match point {
                None => problems.push((key, "missing; write a point [x, y], 0 to 1".into())),
                Some([x, y]) if ![x, y].iter().all(|v| (0.0..=1.0).contains(v)) => {
                    let why = "is outside the picture: x and y go from 0 to 1";
                    problems.push((key, format!("[{x}, {y}] {why}")));
                }
                Some(_) => {}
            }
        }
        if let (Some(a), Some(b)) = (self.from, self.to)
            && (a[0] - b[0]).hypot(a[1] - b[1]) < MARGIN
        {
            problems.push(("to", "is where the line begins".into()));
        }
        problems
    }
}

/// What happened in a zone or at a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneChange {
    /// Into the zone.
    Enter,
    /// Out of the zone, or gone.
    Leave,
    /// In the zone for the zone's `dwell_s`.
    Dwell,
    /// Over the line.
    Cross(Side),
}

/// The sides of a line, as one sees them who goes along it from its first point to its second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The left.
    Left,
    /// The right.
    Right,
}

/// A tracked thing did something in a zone or at a line.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneEvent {
    /// What.
    pub change: ZoneChange,
    /// The zone's or the line's id.
    pub place: Arc<str>,
    /// The track's number.
    pub track: u64,
    /// Its class.
    pub label: Arc<str>,
    /// Where it was found last.
    pub bbox: BBox,
    /// How long it had been in the zone; zero for `Enter` and `Cross`.
    pub lasted: Duration,
}

/// Things by class.
pub type ByClass = BTreeMap<Arc<str>, u64>;

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// When counting began: it goes on over restarts where there is a directory to keep it in.
    pub since: SystemTime,
    /// By zone.
    pub zones: BTreeMap<Arc<str>, ZoneCounts>,
    /// By line.
    pub lines: BTreeMap<Arc<str>, LineCounts>,
}

impl Counts {
    /// Nothing counted yet.
    pub fn since(since: SystemTime) -> Self {
        Self {
            since,
            zones: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }
}

/// Of a zone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneCounts {
    /// In it now.
    pub now: ByClass,
    /// Came in.
    pub entered: ByClass,
    /// Went out.
    pub left: ByClass,
}

/// Of a line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Went over to the left.
    pub left: ByClass,
    /// Went over to the right.
    pub right: ByClass,
}

/// One camera's zones and lines.
#[derive(Debug)]
pub struct Zones {
    zones: Vec<ZoneSettings>,
    lines: Vec<LineSettings>,
    /// By track: bounded, since tracks are.
    things: BTreeMap<u64, Thing>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Thing {
    label: Arc<str>,
    bbox: BBox,
    in_zones: Vec<Stay>,
    /// The last place that was clearly on one side, for each line.
    beside: Vec<Option<[f64; 2]>>,
}

#[derive(Debug, Clone, Default)]
struct Stay {
    since: Option<Instant>,
    /// Looks in a row that say otherwise.
    against: u32,
    dwelt: bool,
}

impl Zones {
    /// Nobody is anywhere; `None` without zones and lines. `before`: what was counted up to now, from which the zones and
    /// lines that are still there go on; whoever was in a zone when that ended has left it.
    pub fn new(zones: &[ZoneSettings], lines: &[LineSettings], before: Counts) -> Option<Self> {
        if zones.is_empty() && lines.is_empty() {
            return None;
        }
        let mut counts = Counts::since(before.since);
        for z in zones {
            let id: Arc<str> = z.id.as_str().into();
            let mut own = before.zones.get(&id).cloned().unwrap_or_default();
            for (label, n) in std::mem::take(&mut own.now) {
                *own.left.entry(label).or_default() += n;
            }
            counts.zones.insert(id, own);
        }
        for l in lines {
            let id: Arc<str> = l.id.as_str().into();
            let own = before.lines.get(&id).cloned().unwrap_or_default();
            counts.lines.insert(id, own);
        }
        Some(Self {
            zones: zones.to_vec(),
            lines: lines.to_vec(),
            things: BTreeMap::new(),
            counts: Arc::new(counts),
        })
    }

    /// What was counted so far.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Takes the things of one frame, and the tracks that ended with it.
    pub fn update<'a>(
        &mut self,
        at: Instant,
        seen: impl Iterator<Item = Seen<'a>>,
        ended: impl Iterator<Item = u64>,
    ) -> Vec<ZoneEvent> {
        let mut events = Vec::new();
        for id in ended {
            if let Some(mut thing) = self.things.remove(&id) {
                self.gone(at, id, &mut thing, &mut events);
            }
        }
        let mut seen: Vec<Seen<'_>> = seen.collect();
        seen.sort_by_key(|s| s.id);
        for s in seen {
            let mut thing = self.things.remove(&s.id).unwrap_or_else(|| Thing {
                label: s.label.clone(),
                bbox: s.bbox,
                in_zones: vec![Stay::default(); self.zones.len()],
                beside: vec![None; self.lines.len()],
            });
            thing.bbox = s.bbox;
            self.look(at, s.id, &mut thing, &mut events);
            self.things.insert(s.id, thing);
        }
        events
    }

    fn look(&mut self, at: Instant, id: u64, thing: &mut Thing, events: &mut Vec<ZoneEvent>) {
        for nth in 0..self.zones.len() {
            let zone = &self.zones[nth];
            let inside = counts_for(&zone.labels, &thing.label)
                && winds_around(&zone.polygon, zone.anchor.of(&thing.bbox));
            let dwell = Duration::try_from_secs_f64(zone.dwell_s).unwrap_or_default();
            let stay = &mut thing.in_zones[nth];
            stay.against = match stay.since.is_some() == inside {
                true => 0,
                false => stay.against + 1,
            };
            if stay.against >= LOOKS {
                stay.against = 0;
                match stay.since.take() {
                    Some(since) => {
                        self.happened(nth, ZoneChange::Leave, id, thing, at - since, events);
                    }
                    None => {
                        (stay.since, stay.dwelt) = (Some(at), false);
                        self.happened(nth, ZoneChange::Enter, id, thing, Duration::ZERO, events);
                    }
                }
            }
            let stay = &mut thing.in_zones[nth];
            let stayed = stay.since.map_or(Duration::ZERO, |s| at - s);
            if !dwell.is_zero() && !stay.dwelt && stayed >= dwell {
                stay.dwelt = true;
                self.happened(nth, ZoneChange::Dwell, id, thing, stayed, events);
            }
        }
        for nth in 0..self.lines.len() {
            let line = &self.lines[nth];
            let (Some(from), Some(to)) = (line.from, line.to) else {
                continue;
            };
            let now = line.anchor.of(&thing.bbox);
            let distance = distance(from, to, now);
            if !counts_for(&line.labels, &thing.label) || distance.abs() < MARGIN {
                continue;
            }
            let before = thing.beside[nth].replace(now);
            if before.is_some_and(|b| crosses(from, to, b, now)) {
                let side = if distance > 0.0 {
                    Side::Right
                } else {
                    Side::Left
                };
                self.crossed(nth, side, id, thing, events);
            }
        }
    }

    fn gone(&mut self, at: Instant, id: u64, thing: &mut Thing, events: &mut Vec<ZoneEvent>) {
        for nth in 0..self.zones.len() {
            if let Some(since) = thing.in_zones[nth].since.take() {
                self.happened(nth, ZoneChange::Leave, id, thing, at - since, events);
            }
        }
    }

    fn happened(
        &mut self,
        zone: usize,
        change: ZoneChange,
        track: u64,
        thing: &Thing,
        lasted: Duration,
        events: &mut Vec<ZoneEvent>,
    ) {
        let place: Arc<str> = self.zones[zone].id.as_str().into();
        let counts = Arc::make_mut(&mut self.counts);
        let counts = counts.zones.entry(place.clone()).or_default();
        let label = &thing.label;
        match change {
            ZoneChange::Enter => {
                *counts.entered.entry(label.clone()).or_default() += 1;
                *counts.now.entry(label.clone()).or_default() += 1;
            }
            ZoneChange::Leave => {
                *counts.left.entry(label.clone()).or_default() += 1;
                let now = counts.now.entry(label.clone()).or_default();
                *now = now.saturating_sub(1);
                counts.now.retain(|_, n| *n > 0);
            }
            ZoneChange::Dwell | ZoneChange::Cross(_) => {}
        }
        events.push(ZoneEvent {
            change,
            place,
            track,
            label: label.clone(),
            bbox: thing.bbox,
            lasted,
        });
    }

    fn crossed(
        &mut self,
        line: usize,
        side: Side,
        track: u64,
        thing: &Thing,
        events: &mut Vec<ZoneEvent>,
    ) {
        let place: Arc<str> = self.lines[line].id.as_str().into();
        let counts = Arc::make_mut(&mut self.counts);
        let counts = counts.lines.entry(place.clone()).or_default();
        let by_class = match side {
            Side::Left => &mut counts.left,
            Side::Right => &mut counts.right,
        };
        *by_class.entry(thing.label.clone()).or_default() += 1;
        events.push(ZoneEvent {
            change: ZoneChange::Cross(side),
            place,
            track,
            label: thing.label.clone(),
            bbox: thing.bbox,
            lasted: Duration::ZERO,
        });
    }
}

fn counts_for(labels: &[String], label: &str) -> bool {
    labels.is_empty() || labels.iter().any(|l| l == label)
}

/// From the line through both points, in parts of the frame; positive on the right (y grows downwards).
fn distance(from: [f64; 2], to: [f64; 2], p: [f64; 2]) -> f64 {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    (dx * (p[1] - from[1]) - dy * (p[0] - from[0])) / dx.hypot(dy)
}

/// Whether the way from `a` to `b` goes over the line between its ends.
fn crosses(from: [f64; 2], to: [f64; 2], a: [f64; 2], b: [f64; 2]) -> bool {
    let apart = |p, q, r, s| distance(p, q, r) * distance(p, q, s) < 0.0;
    let moved = (a[0] - b[0]).hypot(a[1] - b[1]) > 0.0;
    moved && apart(from, to, a, b) && apart(a, b, from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    fn zone(labels: &[&str]) -> ZoneSettings {
        ZoneSettings {
            id: "door".into(),
            polygon: vec![[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]],
            labels: labels.iter().map(|l| l.to_string()).collect(),
            anchor: Anchor::Centre,
            dwell_s: 1.0,
        }
    }

    /// Upwards in the middle of the picture, in its lower half.
    fn line() -> LineSettings {
        LineSettings {
            id: "gate".into(),
            from: Some([0.5, 1.0]),
            to: Some([0.5, 0.5]),
            ..LineSettings::default()
        }
    }

    fn watch(zones: &[ZoneSettings], lines: &[LineSettings]) -> Zones {
        Zones::new(zones, lines, Counts::since(SystemTime::UNIX_EPOCH)).unwrap()
    }

    /// A thing with its anchors at `x`, `y`, one frame after the other; `None`: its track has ended.
    fn play(zones: &mut Zones, label: &str, way: &[Option<(f32, f32)>]) -> Vec<ZoneEvent> {
        let (label, start): (Arc<str>, _) = (label.into(), Instant::now());
        let mut events = Vec::new();
        for (n, place) in way.iter().enumerate() {
            let seen = place.map(|(x, y)| Seen {
                id: 7,
                label: &label,
                bbox: BBox {
                    x0: x - 0.01,
                    y0: y - 0.0001,
                    x1: x + 0.01,
                    y1: y + 0.0001,
                },
            });
            let ended = place.is_none().then_some(7);
            let at = start + PERIOD * n as u32;
            events.extend(zones.update(at, seen.into_iter(), ended.into_iter()));
        }
        events
    }

    fn told(events: &[ZoneEvent]) -> Vec<(ZoneChange, u64)> {
        events
            .iter()
            .map(|e| (e.change, e.lasted.as_millis() as u64))
            .collect()
    }

    fn steps(from: (f32, f32), to: (f32, f32), n: usize) -> Vec<Option<(f32, f32)>> {
        (0..=n)
            .map(|i| {
                let t = i as f32 / n as f32;
                Some((from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t))
            })
            .collect()
    }

    #[test]
    fn into_a_zone_and_out_of_it() {
        use ZoneChange::*;
        let mut zones = watch(&[zone(&[])], &[]);
        let mut way = steps((0.1, 0.5), (0.9, 0.5), 20);
        let events = play(&mut zones, "person", &way);
        // Inside from 0.42 to 0.58: five looks; the second one counts.
        assert_eq!(told(&events), [(Enter, 0), (Leave, 1000)]);
        // It stays, and then its track ends.
        way = vec![Some((0.5, 0.5)); 10];
        way.push(None);
        let events = play(&mut zones, "person", &way);
        assert_eq!(told(&events), [(Enter, 0), (Dwell, 1000), (Leave, 1800)]);
        let counts = zones.counts();
        let door = &counts.zones["door"];
        let of = |c: &ByClass| c.get("person").copied().unwrap_or(0);
        assert_eq!(
            (of(&door.now), of(&door.entered), of(&door.left)),
            (0, 2, 2)
        );
        assert!(zones.things.is_empty());
    }

    #[test]
    fn jitter_on_an_edge_and_other_classes_are_no_events() {
        let mut zones = watch(&[zone(&[])], &[line()]);
        let way: Vec<_> = (0..40)
            .map(|n| Some((0.4 + if n % 2 == 0 { 0.005 } else { -0.005 }, 0.5)))
            .collect();
        assert_eq!(play(&mut zones, "person", &way), []);
        let way: Vec<_> = (0..40)
            .map(|n| Some((0.5 + if n % 2 == 0 { 0.008 } else { -0.008 }, 0.8)))
            .collect();
        assert_eq!(play(&mut zones, "person", &way), []);
        let mut zones = watch(&[zone(&["car"])], &[]);
        let mut way = steps((0.1, 0.5), (0.9, 0.5), 20);
        way.push(None);
        assert_eq!(play(&mut zones, "person", &way), []);
        assert_eq!(play(&mut zones, "car", &way).len(), 2);
    }

    #[test]
    fn over_a_line_by_direction() {
        use ZoneChange::Cross;
        let mut zones = watch(&[], &[line()]);
        let there = play(&mut zones, "cat", &steps((0.2, 0.8), (0.8, 0.8), 13));
        assert_eq!(told(&there), [(Cross(Side::Right), 0)]);
        let mut way = steps((0.8, 0.8), (0.2, 0.7), 3);
        way.push(None);
        let back = play(&mut zones, "cat", &way);
        assert_eq!(told(&back), [(Cross(Side::Left), 0)]);
        // Above its end it is no line.
        let past = play(&mut zones, "cat", &steps((0.2, 0.3), (0.8, 0.3), 13));
        assert_eq!(past, []);
        let counts = zones.counts();
        let gate = &counts.lines["gate"];
        assert_eq!((gate.left["cat"], gate.right["cat"]), (1, 1));
    }

    #[test]
    fn counting_goes_on_from_before_and_who_was_inside_has_left() {
        let mut before = watch(&[zone(&[])], &[line()]);
        play(&mut before, "cat", &steps((0.2, 0.8), (0.8, 0.8), 13));
        play(&mut before, "cat", &[Some((0.5, 0.5)); 3]);
        let counts = Counts::clone(&before.counts());
        assert_eq!(counts.zones["door"].now["cat"], 1);
        let other = ZoneSettings {
            id: "other".into(),
            ..zone(&[])
        };
        let after = Zones::new(&[zone(&[]), other], &[line()], counts.clone()).unwrap();
        let now = after.counts();
        let door = &now.zones["door"];
        assert_eq!(door.entered, counts.zones["door"].entered);
        assert_eq!((&door.left, door.now.len()), (&door.entered, 0));
        assert_eq!(now.zones["other"], ZoneCounts::default());
        assert_eq!(now.lines, counts.lines);
        assert_eq!(now.since, SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn what_can_never_work_is_told() {
        let keys = |p: Vec<(&'static str, String)>| p.into_iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(keys(zone(&[]).problems()), [""; 0]);
        assert_eq!(keys(line().problems()), [""; 0]);
        let zone = ZoneSettings {
            dwell_s: -1.0,
            ..ZoneSettings::default()
        };
        assert_eq!(keys(zone.problems()), ["polygon", "dwell_s"]);
        assert_eq!(keys(LineSettings::default().problems()), ["from", "to"]);
        let line = |to| LineSettings {
            to: Some(to),
            ..line()
        };
        assert_eq!(keys(line([0.5, 1.0]).problems()), ["to"]);
        assert_eq!(keys(line([0.5, 200.0]).problems()), ["to"]);
    }
}

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const PERIOD: Duration = Duration::from_millis(100);

fn detection(index: usize, score: f32, x: f32, y: f32, w: f32, h: f32) -> Detection {
    Detection {
        label: format!("class {index}").into(),
        index,
        score,
        bbox: BBox {
            x0: x - w / 2.0,
            y0: y - h / 2.0,
            x1: x + w / 2.0,
            y1: y + h / 2.0,
        },
    }
}

fn tracker() -> Tracker {
    Tracker::new(TrackSettings::default(), Sequence::new())
}

/// Frames of these detections, `PERIOD` apart: each detection's number, and all events.
fn play(
    tracker: &mut Tracker,
    start: Instant,
    frames: &[Vec<Detection>],
) -> (Vec<Vec<Option<u64>>>, Vec<TrackEvent>) {
    let mut ids = Vec::new();
    let mut events = Vec::new();
    for (n, detections) in frames.iter().enumerate() {
        let (of, more) = tracker.update(start + PERIOD * n as u32, detections);
        ids.push(of);
        events.extend(more);
    }
    events.extend(tracker.finish());
    (ids, events)
}

fn changes(events: &[TrackEvent]) -> Vec<(TrackChange, u64)> {
    events.iter().map(|e| (e.change, e.id)).collect()
}

#[test]
fn a_thing_comes_moves_and_goes() {
    use TrackChange::*;
    let walk = |n: usize| match n {
        0..40 => vec![detection(
            0,
            0.6 + n as f32 * 0.005,
            0.1 + 0.02 * n as f32,
            0.5,
            0.1,
            0.3,
        )],
        _ => vec![],
    };
    let frames: Vec<_> = (0..60).map(walk).collect();
    let (ids, events) = play(&mut tracker(), Instant::now(), &frames);
    assert_eq!(ids[0], [None]);
    assert!(ids[1..40].iter().all(|i| *i == [Some(1)]));
    assert_eq!(
        changes(&events),
        [(New, 1), (Update, 1), (Update, 1), (Update, 1), (End, 1)]
    );
    let end = events.last().unwrap();
    assert_eq!(end.lasted, PERIOD * 39);
    assert!((end.best_score - 0.795).abs() < 1e-4);
    assert!((end.path[0].0 - 0.1).abs() < 1e-6 && (end.path.last().unwrap().0 - 0.88).abs() < 1e-5);
    assert!(
        end.path.windows(2).all(|w| w[0].0 < w[1].0),
        "{:?}",
        end.path
    );
    assert!(events[..4].iter().all(|e| e.path.is_empty()));
}

#[test]
fn what_stands_still_tells_nothing_more() {
    use TrackChange::*;
    let frames = vec![vec![detection(0, 0.9, 0.5, 0.5, 0.1, 0.1)]; 50];
    let (_, events) = play(&mut tracker(), Instant::now(), &frames);
    assert_eq!(changes(&events), [(New, 1), (End, 1)]);
    assert_eq!(events[1].path.len(), 1);
}

#[test]
fn hidden_for_a_second_it_is_the_same_and_for_two_another() {
    for (hidden, same) in [(10, true), (20, false)] {
        let walk = |n: usize| match n {
            0..20 => vec![detection(0, 0.9, 0.2 + 0.01 * n as f32, 0.5, 0.08, 0.2)],
            _ if n < 20 + hidden => vec![],
            _ => vec![detection(0, 0.9, 0.2 + 0.01 * n as f32, 0.5, 0.08, 0.2)],
        };
        let frames: Vec<_> = (0..50).map(walk).collect();
        let (ids, _) = play(&mut tracker(), Instant::now(), &frames);
        let last = if same { 1 } else { 2 };
        assert_eq!(ids[49], [Some(last)], "hidden for {hidden}");
    }
}

#[test]
fn the_doubtful_go_on_and_begin_nothing() {
    let mut frames = vec![vec![detection(0, 0.2, 0.5, 0.5, 0.1, 0.1)]; 5];
    frames.extend(vec![vec![detection(0, 0.9, 0.5, 0.5, 0.1, 0.1)]; 3]);
    frames.extend(vec![vec![detection(0, 0.2, 0.5, 0.5, 0.1, 0.1)]; 30]);
    let (ids, events) = play(&mut tracker(), Instant::now(), &frames);
    assert!(ids[..6].iter().all(|i| *i == [None]));
    assert!(ids[6..].iter().all(|i| *i == [Some(1)]));
    assert_eq!(events.len(), 2);
}

/// Two of a kind meet and part; where they hide each other only one is found.
#[test]
fn those_who_pass_each_other_stay_themselves() {
    let at = |n: usize| {
        let t = n as f32 * 0.1;
        let (a, b) = (0.1 + 0.2 * t, 0.9 - 0.2 * t);
        let mut both = vec![
            detection(0, 0.9, a, 0.48, 0.08, 0.3),
            detection(0, 0.85, b, 0.52, 0.08, 0.3),
        ];
        if (a - b).abs() < 0.03 {
            both.pop();
        }
        both
    };
    let frames: Vec<_> = (0..40).map(at).collect();
    let (ids, _) = play(&mut tracker(), Instant::now(), &frames);
    assert_eq!(ids[5], ids[39]);
}

#[test]
fn a_frame_out_of_order_or_after_a_long_gap() {
    let start = Instant::now();
    let mut t = tracker();
    let one = [detection(0, 0.9, 0.5, 0.5, 0.1, 0.1)];
    for n in 1..4 {
        t.update(start + PERIOD * n, &one);
    }
    assert_eq!(t.update(start + PERIOD, &one), (vec![None], vec![]));
    // A still scene that was not looked at for ten seconds.
    let (ids, events) = t.update(start + Duration::from_secs(10), &one);
    assert_eq!((ids, events), (vec![Some(1)], vec![]));
    let (ids, events) = t.update(start + Duration::from_secs(100), &one);
    assert_eq!(ids, [None]);
    assert_eq!(changes(&events), [(TrackChange::End, 1)]);
}

/// A frame's detections: any number, anywhere, of any size and score.
fn anything() -> impl Strategy<Value = Vec<Vec<Detection>>> {
    let one = (
        0usize..3,
        0.0f32..1.0,
        0.0f32..1.0,
        0.0f32..1.0,
        0.001f32..0.9,
        0.001f32..0.9,
    )
        .prop_map(|(index, score, x, y, w, h)| detection(index, score, x, y, w, h));
    let again = prop::collection::vec(one, 0..12);
    // The same frame for a while, so that tracks begin.
    prop::collection::vec((again, 1usize..8), 1..20)
        .prop_map(|runs| runs.into_iter().flat_map(|(f, n)| vec![f; n]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Jitter of the boxes, missed frames, any direction and speed up to one and a half sizes a second: one number.
    #[test]
    fn one_thing_has_one_number(
        (x, y) in (0.3f32..0.7, 0.3f32..0.7),
        (vx, vy) in (-1.5f32..1.5, -1.5f32..1.5),
        size in 0.03f32..0.2,
        noise in prop::collection::vec((-0.05f32..0.05, -0.05f32..0.05, 0u8..10), 40),
    ) {
        let frames: Vec<Vec<Detection>> = noise.iter().enumerate().map(|(n, (dx, dy, missed))| {
            let t = n as f32 * 0.1;
            let (cx, cy) = (x + (vx * t + dx) * size, y + (vy * t + dy) * size);
            match *missed {
                // The first three are found.
                0 if n > 2 => vec![],
                _ => vec![detection(0, 0.8, cx, cy, size, size)],
            }
        }).collect();
        let (ids, _) = play(&mut tracker(), Instant::now(), &frames);
        let seen: HashSet<u64> = ids.iter().flatten().flatten().copied().collect();
        prop_assert_eq!(seen, HashSet::from([1]));
    }

    #[test]
    fn whatever_is_found_the_story_of_each_number_is_whole(frames in anything()) {
        let (start, settings) = (Instant::now(), TrackSettings::default());
        let mut tracker = Tracker::new(settings, Sequence::new());
        let (ids, events) = play(&mut tracker, start, &frames);
        let mut told: HashMap<u64, Vec<&TrackEvent>> = HashMap::new();
        events.iter().for_each(|e| told.entry(e.id).or_default().push(e));
        for story in told.values() {
            let (first, last) = (story[0], story[story.len() - 1]);
            prop_assert_eq!((first.change, last.change), (TrackChange::New, TrackChange::End));
            prop_assert!(story[1..story.len() - 1].iter().all(|e| e.change == TrackChange::Update));
            prop_assert!(story.len() as u64 - 2 <= frames.len() as u64 * 100 / settings.update_ms + 1);
            prop_assert!(last.path.len() <= MAX_POINTS);
            prop_assert!(story.iter().all(|e| e.index == first.index && e.best_score >= e.score));
        }
        for of in &ids {
            let some: Vec<u64> = of.iter().flatten().copied().collect();
            let distinct: HashSet<u64> = some.iter().copied().collect();
            prop_assert_eq!(some.len(), distinct.len());
            prop_assert!(distinct.iter().all(|id| told.contains_key(id)));
        }
        // And again, at another time: the same.
        let (same_ids, same) = play(&mut Tracker::new(settings, Sequence::new()), start + Duration::from_secs(5000), &frames);
        prop_assert_eq!((ids, events), (same_ids, same));
    }
}

#[test]
fn memory_is_bounded() {
    let mut t = tracker();
    let start = Instant::now();
    for n in 0..20 {
        let crowd: Vec<Detection> = (0..2000)
            .map(|i| {
                detection(
                    0,
                    0.9,
                    (i % 50) as f32 / 50.0,
                    (i / 50) as f32 / 40.0,
                    0.01,
                    0.01,
                )
            })
            .collect();
        t.update(start + PERIOD * n, &crowd[..400]);
        assert!(t.tracks.len() <= MAX_TRACKS);
    }
    let mut t = tracker();
    let mut ids = Vec::new();
    for n in 0..5000u32 {
        let angle = n as f32 * 0.05;
        let d = detection(
            0,
            0.9,
            0.5 + 0.3 * angle.cos(),
            0.5 + 0.3 * angle.sin(),
            0.2,
            0.2,
        );
        ids.extend(t.update(start + PERIOD * n, &[d]).0);
        assert!(t.tracks[0].path.points.len() < MAX_POINTS);
    }
    assert!(ids[1..].iter().all(|id| *id == Some(1)));
}

use super::*;
use crate::clock::SystemClock;
use crate::publish::mqtt::MqttSettings;
use crate::publish::mqtt::link::PICTURE;

fn delivery() -> Delivery {
    let lifetime = Lifetime::new(&MqttSettings::default());
    let stats = Arc::new(Stats::new(["porch".into()]));
    Delivery::new(None, lifetime, Arc::new(SystemClock), stats)
}

/// Nobody is told something twice without a way to see it: by `replayed` and `seq`, or by an answer's `id`.
#[test]
fn what_goes_again_can_be_told_from_something_new() {
    let retained = |payload| Message::retained("o/d/porch/state".into(), payload);
    let message = |topic: &str, qos, payload: &'static [u8]| {
        Message::new(format!("o/d/{topic}"), qos, payload)
    };
    let (once, at_least_once) = (Qos::AtMostOnce, Qos::AtLeastOnce);
    let observation = &br#"{"seq":7,"replayed":false}"#[..];
    let marked = &br#"{"seq":7,"replayed":true}"#[..];
    let health = &br#"{"published":7}"#[..];
    let answer = &br#"{"id":"a","ok":true}"#[..];
    let kept = Origin::Memory { seq: 7 };
    for (message, origin, again) in [
        (
            message("porch/event", at_least_once, observation),
            kept,
            Some(marked),
        ),
        (
            message("porch/classification", at_least_once, observation),
            kept,
            Some(marked),
        ),
        (
            message("porch/classification", once, observation),
            Origin::Plain,
            Some(marked),
        ),
        // A second connection died.
        (
            message("porch/classification", once, marked),
            Origin::Plain,
            Some(marked),
        ),
        (
            message("cmd/result", at_least_once, answer),
            Origin::Plain,
            Some(answer),
        ),
        (message("health", once, health), Origin::Plain, None),
        (
            message("porch/snapshot", once, b"\xff\xd8"),
            Origin::Plain,
            None,
        ),
        // Made anew after each connect.
        (retained(observation), Origin::Plain, None),
        // A picture that the broker is to keep.
        (
            retained(b"\xff\xd8"),
            Origin::Latest { deaths: 0 },
            Some(b"\xff\xd8"),
        ),
    ] {
        let topic = message.topic.clone();
        let mut delivery = delivery();
        delivery.connected();
        let handed = Outgoing {
            message: message.clone(),
            origin,
            seen: Instant::now(),
        };
        delivery.in_flight.insert(0, handed);
        delivery.disconnected();
        let waiting: Vec<_> = delivery
            .outbox
            .iter()
            .map(|o| &*o.message.payload)
            .collect();
        assert_eq!(waiting, Vec::from_iter(again), "{topic}");

        // What was never handed over is as it was.
        if !message.retain {
            let mut delivery = self::delivery();
            delivery.connected();
            delivery.push(message.clone());
            delivery.disconnected();
            assert_eq!(delivery.outbox[0].message, message, "{topic}");
        }
    }
}

/// Pictures were turned off.
#[test]
fn pictures_can_be_dropped() {
    let mut delivery = delivery();
    delivery.connected();
    let picture = |topic: &str| {
        let mut picture = Message::retained(topic.into(), vec![1]);
        picture.properties.content_type = Some(PICTURE.into());
        picture
    };
    delivery.push_latest(picture("a"));
    let under_way = delivery.outbox.pop_front().unwrap();
    delivery.in_flight.insert(0, under_way);
    delivery.push_latest(picture("b"));
    delivery.push(Message::new("c".into(), Qos::AtMostOnce, vec![b'{', b'}']));
    delivery.drop_pictures();
    delivery.disconnected();
    let topics: Vec<_> = delivery.outbox.iter().map(|o| &*o.message.topic).collect();
    assert_eq!(topics, ["c"]);
}

/// A picture that is too large for the broker ends each connection: it must not go on for ever.
#[test]
fn a_picture_over_which_connections_die_is_dropped() {
    let mut delivery = delivery();
    delivery.push_latest(Message::retained("o/d/porch/snapshot".into(), vec![1]));
    for death in 1..=LAST_DEATH {
        delivery.connected();
        // One that waits is not what the connection died of.
        delivery.disconnected();
        delivery.connected();
        let outgoing = delivery.outbox.pop_front().unwrap();
        delivery.in_flight.insert(0, outgoing);
        delivery.disconnected();
        assert_eq!(delivery.outbox.len(), usize::from(death < LAST_DEATH));
    }
}

/// The newest picture of a camera goes again, wherever it and those before it were when the connection died.
#[test]
fn of_pictures_that_the_broker_is_to_keep_the_newest_goes_again() {
    let picture =
        |camera: &str, n: u8| Message::retained(format!("o/d/{camera}/snapshot"), vec![n]);
    for handed in 0..=3 {
        let mut delivery = delivery();
        delivery.connected();
        for n in [1, 2, 3] {
            delivery.push_latest(picture("porch", n));
            if n <= handed {
                let outgoing = delivery.outbox.pop_front().unwrap();
                delivery.in_flight.insert(n.into(), outgoing);
            }
        }
        delivery.push_latest(picture("yard", 9));
        // While the connection stands all of them go.
        assert_eq!(delivery.outbox.len() + usize::from(handed), 4);
        delivery.disconnected();
        let waiting: Vec<_> = delivery.outbox.iter().map(|o| o.message.clone()).collect();
        assert_eq!(
            waiting,
            [picture("porch", 3), picture("yard", 9)],
            "{handed}"
        );
        // Again, and it arrives.
        delivery.connected();
        let outgoing = delivery.outbox.pop_front().unwrap();
        delivery.in_flight.insert(10, outgoing);
        delivery.done(10);
        delivery.disconnected();
        assert_eq!(delivery.outbox.len(), 1);
    }
}

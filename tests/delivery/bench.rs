//! The program, a network that can be closed, a broker, and a subscriber that counts.

use serde_json::Value;

use crate::common::mosquitto::{AT_ONCE, Mosquitto, mosquitto_with_or_skip};
use crate::common::proxy::Proxy;
use crate::firmware::{Firmware, Home, Setup};
use crate::ledger::{Subscriber, judge, wait_until};

pub struct Bench {
    pub home: Home,
    pub proxy: Proxy,
    pub subscriber: Subscriber,
    pub broker: Mosquitto,
}

impl Bench {
    /// The program is set up to reach the broker by way of the proxy, which is open.
    pub fn new(setup: Setup) -> Option<Self> {
        let broker = mosquitto_with_or_skip(AT_ONCE)?;
        let proxy = Proxy::start(broker.port);
        let home = Home::new(&Setup {
            port: proxy.port,
            ..setup
        });
        Some(Self {
            subscriber: Subscriber::start(broker.port),
            home,
            proxy,
            broker,
        })
    }

    /// The next message on `health` for which `holds` does.
    pub fn health(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.subscriber.forget_health();
        wait_until(what, || holds(&self.subscriber.health()));
        self.subscriber.health()
    }

    pub fn publishes(&self) {
        let before = self.subscriber.names().len();
        wait_until("messages arrive", || {
            self.subscriber.names().len() > before + 50
        });
    }

    /// Everything that was made so far arrives. What is stored at the stop may be gone: the file system goes with the program.
    pub fn finish(&self, firmware: Firmware) {
        let made = self.home.made();
        self.subscriber.wait_for(&made);
        println!("{}", judge(&made, &self.subscriber.receipts(), false));
        firmware.stop();
    }
}

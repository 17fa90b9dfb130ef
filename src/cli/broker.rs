//! `ocellus broker`: the embedded MQTT broker alone.

use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::{Broker, BrokerSettings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on; loopback unless told otherwise, since it asks for no password
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let broker = Broker::start(BrokerSettings {
        listen: args.listen,
    })?;
    let address = broker.local_addr();
    println!(
        "MQTT broker on {address}; look with: mosquitto_sub -h {} -p {} -t '#' -v",
        address.ip(),
        address.port()
    );
    if !address.ip().is_loopback() {
        tracing::warn!(
            "the broker asks for no password, and {address} can be reached from outside this machine"
        );
    }
    // SIGTERM and Ctrl-C end the process; the broker keeps nothing on disk.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

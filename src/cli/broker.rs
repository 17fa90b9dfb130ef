//! `ocellus broker`: the embedded MQTT broker alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use crate::broker::{Broker, BrokerSettings};
use crate::config::BrokerPlan;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on; any but loopback needs a user and a password
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// The one user that may connect; its password comes from $OCELLUS_BROKER_PASSWORD or --password-file
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let file = args.password_file.as_deref();
    let plan = BrokerPlan::new(Some(args.listen), args.username, file)
        .map_err(|(key, message)| ConfigError(format!("--{}: {message}", key.replace('_', "-"))))?;
    let broker = Broker::start(BrokerSettings {
        listen: plan.listen,
        login: plan.login,
    })?;
    let address = broker.local_addr();
    println!(
        "MQTT broker on {address}; look with: mosquitto_sub -h {} -p {} -t '#' -v",
        address.ip(),
        address.port()
    );
    // SIGTERM and Ctrl-C end the process; the broker keeps nothing on disk.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

//! The `io` thread: a current-thread tokio for everything that waits for the network, signals and systemd.
//!
//! Always holds: it ends at most a second and a half after it was asked to, whatever the network does.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;

use crate::config::BrokerPlan;
use crate::publish::mqtt;
use crate::shutdown::Shutdown;
use crate::stats::Stats;
use crate::watchdog::Watchdog;

/// What runs on the thread.
pub(super) struct Tasks {
    pub broker: Option<BrokerPlan>,
    pub client: Option<mqtt::MqttClient>,
    pub stats: Arc<Stats>,
    pub watchdog: Watchdog,
    /// Requested by signals.
    pub pipeline_shutdown: Shutdown,
    /// Ends this thread, after everything else.
    pub io_shutdown: Shutdown,
    pub is_service: bool,
}

/// Starts the thread. The broker listens when this returns.
pub(super) fn spawn(tasks: Tasks) -> anyhow::Result<JoinHandle<()>> {
    #[cfg(feature = "broker")]
    let broker = tasks
        .broker
        .map(|b| {
            crate::broker::Broker::start(crate::broker::BrokerSettings {
                listen: b.listen,
                login: b.login,
            })
        })
        .transpose()?;
    #[cfg(not(feature = "broker"))]
    if tasks.broker.is_some() {
        anyhow::bail!(
            "[broker]: this build has no embedded broker (feature `broker`); use an MQTT broker and [mqtt] url"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the network runtime")?;
    let heartbeat = tasks.watchdog.register("io", Duration::from_secs(10));
    super::spawn("io".into(), move || {
        runtime.block_on(async {
            let beats = async {
                loop {
                    heartbeat.beat();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            let service = async {
                if tasks.is_service {
                    tokio::join!(
                        signals(&tasks.pipeline_shutdown),
                        systemd(&tasks.stats, &tasks.watchdog)
                    );
                }
                std::future::pending::<()>().await
            };
            let work = async {
                match tasks.client {
                    Some(client) => client.run(tasks.io_shutdown.clone()).await,
                    None => until(&tasks.io_shutdown).await,
                }
            };
            tokio::select! {
                () = work => {}
                () = beats => {}
                () = service => {}
            }
        });
        #[cfg(feature = "broker")]
        drop(broker);
        if tasks.is_service {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
        }
    })
}

async fn until(shutdown: &Shutdown) {
    while !shutdown.is_requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first SIGTERM or Ctrl-C asks for a clean stop; the second ends the process.
async fn signals(shutdown: &Shutdown) {
    for nth in 0.. {
        if let Err(e) = next_signal().await {
            tracing::error!("cannot wait for signals: {e}");
            return;
        }
        if nth > 0 {
            std::process::exit(130);
        }
        tracing::info!("stopping");
        shutdown.request();
    }
}

#[cfg(unix)]
async fn next_signal() -> std::io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = term.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn next_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// READY at once, STATUS every few seconds, WATCHDOG while every thread makes progress. A thread without progress is
/// the end: systemd is asked to act at once rather than after another `WatchdogSec=`.
async fn systemd(stats: &Stats, watchdog: &Watchdog) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status(stats))]);
    let period = sd_notify::watchdog_enabled().map_or(Duration::from_secs(5), |w| w / 3);
    loop {
        tokio::time::sleep(period.min(Duration::from_secs(5))).await;
        let stalled = watchdog.stalled();
        if stalled.is_empty() {
            let _ =
                sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status(stats))]);
            continue;
        }
        let what = format!("no progress: {}", stalled.join(", "));
        tracing::error!("{what}; the watchdog ends this process");
        let _ = sd_notify::notify(&[NotifyState::Status(&what), NotifyState::WatchdogTrigger]);
        return;
    }
}

/// One line for `systemctl status`: `porch online, 812 inferred; broker connected, 900 messages`.
fn status(stats: &Stats) -> String {
    let cameras = stats.cameras.iter().map(|c| {
        let is = if c.online.load(Relaxed) {
            "online"
        } else {
            "offline"
        };
        format!("{} {is}, {} inferred", c.id, c.inferred.get())
    });
    let (now, altogether) = stats.broker_away();
    let connects = stats.broker_connects.get();
    let broker = match stats.broker_connected.load(Relaxed) {
        true if connects <= 1 => "connected".into(),
        true => format!(
            "connected ({connects} times, {} s without)",
            altogether.as_secs()
        ),
        false => format!("not connected for {} s", now.as_secs()),
    };
    format!(
        "{}; broker {broker}, {} messages",
        cameras.collect::<Vec<_>>().join("; "),
        stats.published.get()
    )
}

//! What years bring: a broker that goes, threads that hang, a process that is killed, a configuration with a mistake.

use crate::board::{Board, PATIENCE};
use crate::camera::{configure, observations_flow, vivid, wait_for_status};
use crate::common::mosquitto::Observer;

fn wait_for_device(observer: &Observer, status: &str) {
    observer.wait_for(PATIENCE, &format!("the device is {status}"), |m| {
        m.topic == "ocellus/board/status" && m.text() == status
    });
}

/// The broker stops and starts: the process waits, is online again, and says so.
pub fn broker_restarts(board: &mut Board, observer: &Observer) {
    let pid = board.service("MainPID");
    board.sh("systemctl stop mosquitto");
    board.eventually(
        "the status line says so",
        "systemctl show -P StatusText ocellus | grep 'broker not connected'",
    );
    board.sh("systemctl start mosquitto");
    wait_for_device(observer, "online");
    observations_flow(observer);
    assert_eq!(board.service("MainPID"), pid);
    let retained =
        "mosquitto_sub -C 2 -W 20 -v -t ocellus/board/status -t ocellus/board/porch/status";
    let retained = board.sh(&format!("{retained} | sort"));
    assert_eq!(
        retained,
        "ocellus/board/porch/status online\nocellus/board/status online"
    );
    board.done("the broker was stopped and started");
}

/// A thread that makes no progress is frozen by the kernel, one at a time, as a driver's call that never returns would
/// freeze it: nothing in the program helps.
pub fn hangs_end_in_a_restart(board: &mut Board, observer: &Observer) {
    // A minute is too long for a test.
    board.sh("mkdir -p /run/systemd/system/ocellus.service.d\n\
         printf '[Service]\\nWatchdogSec=15\\n' >/run/systemd/system/ocellus.service.d/test.conf\n\
         systemctl daemon-reload");
    for thread in ["infer-0", "capture-porch"] {
        configure(board, &vivid("yuyv"));
        observations_flow(observer);
        let pid = board.service("MainPID");
        board.sh(&format!(
            "cgroup=/sys/fs/cgroup/system.slice/ocellus.service\n\
             mkdir $cgroup/hang && echo threaded >$cgroup/hang/cgroup.type\n\
             task=$(grep -l '^{thread}$' /proc/{pid}/task/*/comm | cut -d / -f 5)\n\
             echo $task >$cgroup/hang/cgroup.threads && echo 1 >$cgroup/hang/cgroup.freeze"
        ));
        wait_for_device(observer, "offline");
        board.eventually(
            "it is started again",
            &format!("[ $(systemctl show -P NRestarts ocellus) = 1 ] && [ $(systemctl is-active ocellus) = active ] \
                      && [ $(systemctl show -P MainPID ocellus) != {pid} ]"),
        );
        board.sh(&format!(
            "journalctl -u ocellus _PID={pid} -o cat | grep -F 'no progress: {thread}; the watchdog ends this process'"
        ));
        observations_flow(observer);
        board.done(&format!("{thread} hung: restarted by the watchdog"));
    }
    // A missing camera and a missing broker are no hang.
    configure(board, "source = \"v4l2:/dev/video9\"");
    board.eventually(
        "ready without a camera",
        "[ $(systemctl is-active ocellus) = active ]",
    );
    board.sh("systemctl stop mosquitto && sleep 25");
    assert_eq!(
        (board.service("ActiveState"), board.service("NRestarts")),
        ("active".into(), "0".into())
    );
    board.sh(
        "systemctl start mosquitto && rm -r /run/systemd/system/ocellus.service.d && systemctl daemon-reload",
    );
    board.done("no camera and no broker for longer than the watchdog bears: not restarted");
}

pub fn a_killed_service_comes_back(board: &mut Board, observer: &Observer) {
    configure(board, &vivid("yuyv"));
    observations_flow(observer);
    board.sh("systemctl kill --signal=KILL ocellus");
    // The will, then the next process.
    wait_for_device(observer, "offline");
    wait_for_device(observer, "online");
    wait_for_status(observer, "online");
    observations_flow(observer);
    assert_eq!(board.service("NRestarts"), "1");
    board.done("killed: the will was published, and it is back");
}

/// Failed, with the reason in the journal, and left alone.
pub fn a_broken_configuration_is_told_once(board: &mut Board) {
    let (status, _) = board.try_sh(
        "systemctl reset-failed ocellus\n\
         sed 's/^url/ulr/' -i /etc/ocellus/ocellus.toml\n\
         systemctl restart ocellus",
    );
    assert_ne!(status, 0, "a start with a mistake succeeded");
    board.eventually(
        "it is given up",
        "[ $(systemctl is-failed ocellus) = failed ]",
    );
    // Restarts come after two seconds.
    board.sh("sleep 8");
    assert_eq!(
        (board.service("ActiveState"), board.service("NRestarts")),
        ("failed".into(), "0".into())
    );
    assert_eq!(board.service("ExecMainStatus"), "78");
    board.sh("journalctl -u ocellus -o cat | grep -F 'ulr' | grep -F 'url'");
    board.done("a mistake in the configuration: failed, told, not tried again");
    board.sh("sed 's/^ulr/url/' -i /etc/ocellus/ocellus.toml && systemctl reset-failed ocellus && systemctl start ocellus");
}

/// As docs/boards.md has it: a file in the credential store, which the service gets from systemd. A wrong password is refused, so the
/// right one is what opens the door; it stays there for the steps that follow.
pub fn the_password_comes_from_the_credential_store(board: &mut Board, observer: &Observer) {
    let store = |password: &str| {
        format!(
            "printf %s '{password}' | install -m 600 /dev/stdin /etc/credstore/ocellus.mqtt-password && systemctl restart ocellus"
        )
    };
    board.sh(
        "mosquitto_passwd -b -c /etc/mosquitto/users board 'the right one' && chown mosquitto /etc/mosquitto/users\n\
         echo 'password_file /etc/mosquitto/users' >>/etc/mosquitto/conf.d/board.conf && systemctl restart mosquitto\n\
         sed 's/^url = .*/&\\nusername = \"board\"/' -i /etc/ocellus/ocellus.toml",
    );
    board.sh(&store("the wrong one"));
    board.eventually(
        "the broker refuses it",
        "journalctl -u ocellus _PID=$(systemctl show -P MainPID ocellus) -o cat | grep -F 'the broker refused'",
    );
    board.sh(&store("the right one"));
    wait_for_device(observer, "online");
    observations_flow(observer);
    board.sh("! journalctl -b -o cat | grep -F 'the right one'");
    board.done("the password came from the credential store");
}

/// SIGTERM: the end comes by itself, in time, and is announced.
pub fn a_stop_is_clean(board: &mut Board, observer: &Observer) {
    observations_flow(observer);
    board.sh("systemctl stop ocellus");
    wait_for_device(observer, "offline");
    let how = ["Result", "ExecMainCode", "ExecMainStatus", "ActiveState"].map(|p| board.service(p));
    assert_eq!(how, ["success", "1", "0", "inactive"]);
    board.done("stopped: clean, within the limit");
}

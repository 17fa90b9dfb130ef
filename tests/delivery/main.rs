//! Nothing acknowledged is lost, with real parts: the program, a mosquitto, a network that fails on purpose, and a subscriber
//! that counts.
//!
//! *Accepted* is a message that was made while the program lived on (each is also a line of `--output jsonl`), or, where the
//! program is killed in `always` mode, one whose storing it had told in its log.
//!
//! `make soak` runs the long form.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod bounds;
mod disk;
mod expiry;
mod faults;
mod firmware;
mod ledger;

use faults::{Case, broker_kills, cuts, firmware_kills};

fn short(mode: &'static str, order: &'static str) -> Case {
    Case {
        mode,
        order,
        ..Case::default()
    }
}

#[test]
fn a_broker_that_is_killed() {
    let case = Case {
        persistent_broker: true,
        ..short("offline", "live")
    };
    broker_kills(&case, 3);
}

#[test]
fn a_broker_that_is_killed_and_forgets() {
    broker_kills(&short("always", "strict"), 3);
}

#[test]
fn a_program_that_is_killed() {
    firmware_kills(&short("always", "live"), 4);
}

#[test]
fn a_network_that_fails() {
    cuts(&short("offline", "strict"), 7);
}

#[test]
fn a_network_that_fails_while_everything_is_stored() {
    let case = Case {
        version: 5,
        session: true,
        ..short("always", "live")
    };
    cuts(&case, 7);
}

/// `OCELLUS_SOAK_{BROKER_KILLS,KILLS,CUTS,MINUTES}`.
#[test]
#[ignore = "the long form: make soak"]
fn soak() {
    faults::soak();
}

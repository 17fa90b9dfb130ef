//! # Ocellus: firmware for a camera that thinks
//!
//! ```text
//! camera ─▶ frame ─▶ input tensor ─▶ quantized ResNet on tract ─▶ observation ─▶ MQTT
//!                                                                     └─▶ stdout
//! ```
//!
//! ## Modules, in the order in which a frame meets them
//!
//! | module | what it does |
//! |---|---|
//! | [`frame`] | `Frame`, its geometry and metadata, the buffer pool, the latest-frame slots |
//! | [`capture`] | camera kinds behind [`capture::Source`]; the supervisor that reopens them |
//! | [`preprocess`] | a frame's bytes → the model's input tensor |
//! | [`motion`] | whether a frame is worth an inference |
//! | [`model`] | bundles, the ONNX normalization pass, the inference engine |
//! | [`task`] | pure decoders of the model's outputs |
//! | [`observe`] | observations; smoothing and hysteresis |
//! | [`publish`] | sinks: MQTT, JSON lines |
//! | [`broker`] | the embedded MQTT broker |
//! | [`control`] | commands and settings from MQTT, acting on the running pipeline |
//! | [`pipeline`] | the plan → threads: the only wiring point |
//! | [`eval`] | how good a model is, against what people have drawn |
//! | [`config`] | TOML → `Config` (what was written) → `Plan` (what will run) |
//! | [`cli`] | a file a command |
//!
//! [`clock`], [`controls`], [`limit`], [`replace`], [`secret`], [`shutdown`], [`stats`] and [`watchdog`] are used by all of them. Imports run one way:
//! `cli → pipeline → {capture preprocess motion model task observe publish} → frame, clock, stats`.
//! Stages never import each other, but for the data that one hands to the next.
//!
//! ## Threads
//!
//! | thread | owns | hands over by |
//! |---|---|---|
//! | `capture-<camera>` | the device and its reconnects | [`frame::LatestSlots`] |
//! | `infer-<n>` | preprocessor and model session; takes the camera whose frame waited longest | bounded queue to each sink |
//! | `io` | a current-thread tokio: MQTT, embedded broker, commands | – |
//! | `spool` | the file of messages that wait for the broker | replies, in the order of the requests |
//! | `seq` | the file of observations' numbers | atomics |

#[cfg(feature = "broker")]
pub mod broker;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod controls;
pub mod eval;
pub mod frame;
pub mod limit;
pub mod model;
pub mod motion;
pub mod observe;
pub mod pipeline;
pub mod preprocess;
pub mod publish;
pub mod replace;
pub mod secret;
pub mod shutdown;
pub mod stats;
pub mod task;
pub mod toml_read;
pub mod watchdog;

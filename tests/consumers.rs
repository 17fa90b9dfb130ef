//! What docs/dashboards.md and schema/asyncapi-1.0.json promise, with the program itself, mosquitto, Python, Node-RED, InfluxDB and Prometheus.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use common::device::{Device, configure};
use common::mosquitto::{DEADLINE, Observer, Seen, free_port, mosquitto_or_skip, publish};
use common::onnx::{boxes, red_pixels};
use common::schema::check;
use common::{python, skip};
use ocellus::clock::rfc3339_ms;
use prost::Message;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../docs/dashboards.md");

/// The page's snippets in a language.
fn snippets(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = PAGE.split(fence.as_str()).skip(1);
    parts.filter_map(|p| p.split("```").next()).collect()
}

/// Ends its process, by its id, when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The JSON that a server on this machine answers, if it does.
fn ask(port: u16, method: &str, path: &str) -> Option<Value> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// For a URL's query.
fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

fn asyncapi() -> Value {
    serde_json::from_str(include_str!("../schema/asyncapi-1.0.json")).unwrap()
}

fn node_modules() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules");
    beside.is_dir().then_some(beside)
}

#[test]
fn twenty_lines_of_python_decode_embeddings() {
    let Some(python) = python() else {
        return skip("needs OCELLUS_PYTHON with paho-mqtt and numpy");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/subscriber.py");
    let source = std::fs::read_to_string(&script).unwrap();
    assert!(source.lines().filter(|l| !l.starts_with("#!")).count() <= 20);
    let mut child = Command::new(python)
        .arg(script)
        .args(["127.0.0.1", &broker.port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _child = Process(child);
    let dir = tempfile::tempdir().unwrap();
    let observer = Observer::start(broker.port, "ocellus/+/+/embedding");
    let _device = Device::start(&configure(dir.path(), &["porch"], broker.port, ""));
    let (tx, seen) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tx.send(l)));
    let dim = observer.wait("an embedding", |_| true).json()["embedding"]["dim"].to_string();
    for nth in 0..5 {
        let line = seen.recv_timeout(DEADLINE).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[0], words[2]), ("porch", &*dim), "{line}");
        let alike: f64 = words[3].parse().unwrap();
        assert!(
            (-1.0..=1.0).contains(&alike) && (nth > 0 || alike == 1.0),
            "{line}"
        );
    }
}

/// With a flow in which these ports are put in the place of the usual ones; it is connected to its broker.
fn node_red(modules: &Path, dir: &Path, flow: &str, ports: &[(&str, u16)]) -> Option<Process> {
    let mut here = flow.to_string();
    for (usual, port) in ports {
        let usual = format!("\"port\":\"{usual}\"");
        assert!(here.contains(&usual), "{usual}: {here}");
        here = here.replace(&usual, &format!("\"port\":\"{port}\""));
    }
    let file = dir.join("flows.json");
    std::fs::write(&file, here).unwrap();
    let mut child = Command::new("node")
        .arg(modules.join("node-red/red.js"))
        .arg("--userDir")
        .arg(dir)
        .args(["--port", &free_port().to_string()])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let process = Process(child);
    let (tx, connected) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.contains("Connected to broker") {
                let _ = tx.send(());
            }
        }
    });
    let waited = connected.recv_timeout(3 * DEADLINE);
    waited.expect("Node-RED did not connect to the broker");
    Some(process)
}

#[test]
fn the_node_red_flow_says_what_appeared() {
    let Some(node) = node_modules() else {
        return skip("Node-RED is not installed (scripts/test-deps.sh)");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // It has subscribed once the broker knows its client; mosquitto says so nowhere, so that the device's own events are awaited.
    let alerts = Observer::start(broker.port, "alerts/#");
    let events = Observer::start(broker.port, "ocellus/+/+/event");
    let flow = snippets("json")[0];
    let Some(_node_red) = node_red(&node, dir.path(), flow, &[("1883", broker.port)]) else {
        return skip("node is not installed");
    };
    let _device = Device::start(&configure(
        dir.path(),
        &["porch"],
        broker.port,
        "[smoothing]\nwindow_ms = 0\nmin_duration_ms = 0\n",
    ));
    let alert = alerts.wait("an alert of the program's own event", |_| true);
    assert_eq!(alert.topic, "alerts/dev-1/porch");
    let labels: BTreeSet<String> = events
        .collect("the event", |s| {
            alert
                .text()
                .starts_with(&format!("{} (", s.json()["to"].as_str().unwrap_or("-")))
        })
        .iter()
        .map(|s| s.text())
        .collect();
    assert!(!labels.is_empty());
    // What it must not say, then what it must.
    let event = |replayed: bool, kind: &str, to: &str| {
        json!({"event_type": kind, "from": null, "to": to, "score": 0.914, "replayed": replayed})
            .to_string()
    };
    publish(
        broker.port,
        "ocellus/x/y/event",
        &event(true, "appeared", "old"),
        false,
    );
    publish(
        broker.port,
        "ocellus/x/y/event",
        &event(false, "disappeared", "gone"),
        false,
    );
    publish(
        broker.port,
        "ocellus/x/y/event",
        &event(false, "appeared", "cat"),
        false,
    );
    let alert = alerts.wait("the made event", |s| s.topic == "alerts/x/y");
    assert_eq!(alert.text(), "cat (91 %)");
}

/// InfluxDB, as Debian has it.
struct Influx {
    port: u16,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Influx {
    /// `None`: scripts/test-deps.sh has not unpacked it.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/influxdb/usr/bin/influxd");
        if !program.exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "reporting-disabled = true\nbind-address = '127.0.0.1:0'\n[meta]\ndir = '{}'\n[data]\ndir = '{}'\nwal-dir = '{}'\n\
             [monitor]\nstore-enabled = false\n[http]\nbind-address = '127.0.0.1:{port}'\n",
            at("meta"),
            at("data"),
            at("wal")
        );
        std::fs::write(at("influxdb.conf"), config).unwrap();
        let child = Command::new(program)
            .args(["-config", &at("influxdb.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Some(Self {
            port,
            _process: Process(child.unwrap()),
            _dir: dir,
        })
    }

    /// The result of a query once it satisfies.
    fn query(&self, method: &str, query: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/query?db=ocellus&q={}", encoded(query));
        let end = Instant::now() + 3 * DEADLINE;
        loop {
            let answer = ask(self.port, method, &path);
            let result = answer.map(|a| a["results"][0].clone()).unwrap_or_default();
            assert!(result["error"].is_null(), "{query}: {result}");
            if satisfies(&result) {
                return result;
            }
            assert!(Instant::now() < end, "{query}: {result}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The series of a query, once there are any.
    fn series(&self, query: &str) -> Vec<Value> {
        let result = self.query("GET", query, |r| r["series"].is_array());
        result["series"].as_array().unwrap().clone()
    }
}

/// Names and values of a series' first row.
fn first_row(series: &Value) -> BTreeMap<&str, &Value> {
    let names = series["columns"].as_array().unwrap();
    let names = names.iter().map(|n| n.as_str().unwrap());
    names.zip(series["values"][0].as_array().unwrap()).collect()
}

#[test]
fn every_query_of_the_page_has_data_in_influxdb() {
    let (Some(node), Some(influx)) = (node_modules(), Influx::start()) else {
        return skip("Node-RED or InfluxDB is not there (scripts/test-deps.sh)");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let (_, create) = PAGE.split_once("--data-urlencode 'q=").unwrap();
    let create = create.split_once('\'').unwrap().0;
    influx.query("POST", create, |r| r["statement_id"] == 0);
    let dir = tempfile::tempdir().unwrap();
    let states = Observer::start(broker.port, "ocellus/+/+/state");
    let ports = [("1883", broker.port), ("8086", influx.port)];
    let Some(_node_red) = node_red(&node, dir.path(), snippets("json")[1], &ports) else {
        return skip("node is not installed");
    };
    let _device = Device::start(&configure(
        dir.path(),
        &["porch"],
        broker.port,
        "[smoothing]\nwindow_ms = 0\nmin_duration_ms = 0\n",
    ));
    let mut queries = 0;
    for query in snippets("sql")[0].lines() {
        let now = query
            .replace("$timeFilter", "time > now() - 1h")
            .replace("$__interval", "1s");
        let series = influx.series(&now);
        // The curves' names.
        for tag in ["device", "camera"] {
            let (_, group) = now.split_once("GROUP BY").unwrap_or_default();
            if group.contains(tag) {
                assert!(
                    !series[0]["tags"][tag].as_str().unwrap().is_empty(),
                    "{query}"
                );
            }
        }
        let known = series[0]["values"].as_array().unwrap();
        assert!(known.iter().any(|row| !row[1].is_null()), "{query}");
        queries += 1;
    }
    assert_eq!(queries, 8);

    // What is there is what was sent, at the time of the picture.
    // The first ones may have come before Node-RED had subscribed.
    while states.next_within(Duration::ZERO).is_some() {}
    let state = states.wait("a state", |s| !s.retained).json();
    let at = format!("WHERE time = '{}'", state["ts"].as_str().unwrap());
    let series = influx.series(&format!("SELECT * FROM ocellus_camera {at} GROUP BY *"));
    assert_eq!(
        series[0]["tags"],
        json!({"device": "dev-1", "camera": "porch"})
    );
    let row = first_row(&series[0]);
    for key in ["seq", "score", "fps", "infer_ms", "age_ms"] {
        assert_eq!(row[key].as_f64(), state[key].as_f64(), "{key}");
    }
    let label = row.get("label").copied().unwrap_or(&Value::Null);
    assert_eq!(label, &state["label"]);

    // What comes late lies where it belongs, and what comes twice is there once.
    let event = |ts: &str, replayed: bool| {
        let event = json!({
            "schema": "1.0", "device": "x", "camera": "y", "seq": 7, "ts": ts, "replayed": replayed,
            "event_type": "appeared", "from": null, "to": "cat", "score": 0.914, "lasted_ms": 0.0,
        });
        check("event", &event);
        publish(broker.port, "ocellus/x/y/event", &event.to_string(), false);
    };
    let ago = |hours: u64| rfc3339_ms(SystemTime::now() - Duration::from_secs(3600 * hours));
    let (early, late) = (ago(24), ago(23));
    event(&early, false);
    event(&early, true);
    event(&late, false);
    let of_x = "FROM ocellus_event WHERE device = 'x'";
    influx.series(&format!("SELECT * {of_x} AND time = '{late}'"));
    let count = format!("SELECT count(\"to\") {of_x} AND time = '{early}'");
    assert_eq!(first_row(&influx.series(&count)[0])["count"], 1);
}

/// Where scripts/test-deps.sh unpacks Prometheus and its exporter for MQTT.
fn prometheus_programs() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus/usr/bin");
    beside.join("prometheus").exists().then_some(beside)
}

/// Prometheus and the exporters, as docs/dashboards.md sets them up.
struct Prometheus {
    port: u16,
    dir: tempfile::TempDir,
    _processes: Vec<Process>,
}

impl Prometheus {
    /// The page's own files, with these ports in the place of theirs.
    fn start(programs: &Path, broker: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, holds: &str, changes: &[(&str, &str)]| {
            let found = snippets("yaml").into_iter().find(|s| s.contains(holds));
            let mut text = found.unwrap().to_string();
            for (from, to) in changes {
                assert!(text.contains(from), "{from}: {text}");
                text = text.replace(from, to);
            }
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let start = |program: &str, args: &[String]| {
            let log = std::fs::File::create(
                dir.path()
                    .join(format!("{}.log", args[1].replace('/', "_"))),
            );
            let child = Command::new(programs.join(program))
                .args(args)
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(log.unwrap())
                .spawn();
            Process(child.unwrap())
        };
        let server = format!("127.0.0.1:{broker}");
        let mut processes = Vec::new();
        let exporters = ["ocellus/+/+/state", "ocellus/+/health"].map(|topic| {
            let port = free_port();
            let path = file(
                &format!("{port}.yaml"),
                &format!("topic_path: {topic}"),
                &[("127.0.0.1:1883", &server)],
            );
            let args = format!(
                "-config {} -listen-address 127.0.0.1 -listen-port {port}",
                path.display()
            );
            let args: Vec<String> = args.split(' ').map(String::from).collect();
            processes.push(start("prometheus-mqtt-exporter", &args));
            format!("127.0.0.1:{port}")
        });
        let rules = file("rules.yml", "alert: OcellusSilent", &[]);
        let config = file(
            "prometheus.yml",
            "127.0.0.1:9641",
            &[
                ("127.0.0.1:9641", &exporters[0]),
                ("127.0.0.1:9642", &exporters[1]),
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                (
                    "scrape_configs:",
                    &format!(
                        "global: {{evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:",
                        rules.display()
                    ),
                ),
            ],
        );
        let port = free_port();
        let args = format!(
            "--config.file {} --storage.tsdb.path {} --web.listen-address 127.0.0.1:{port}",
            config.display(),
            dir.path().join("data").display()
        );
        let args: Vec<String> = args.split(' ').map(String::from).collect();
        processes.push(start("prometheus", &args));
        Self {
            port,
            dir,
            _processes: processes,
        }
    }

    /// `data` of the answer of its HTTP interface, if it gives one.
    fn ask(&self, path: &str) -> Option<Value> {
        let body = ask(self.port, "GET", &format!("/api/v1/{path}"))?;
        let error = body["error"].as_str().unwrap_or_default();
        assert!(error.is_empty(), "{path}: {error}");
        Some(body["data"].clone())
    }

    /// The series of an expression, once there are any.
    fn evaluate(&self, expression: &str) -> Vec<Value> {
        let encoded = encoded(expression);
        let end = Instant::now() + 3 * DEADLINE;
        loop {
            let data = self.ask(&format!("query?query={encoded}"));
            let series = data.and_then(|d| d["result"].as_array().cloned());
            match series {
                Some(series) if !series.is_empty() => return series,
                _ => assert!(
                    Instant::now() < end,
                    "no data: {expression}; {}",
                    self.logs()
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn logs(&self) -> String {
        let logs = common::sorted(self.dir.path());
        let logs = logs
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "log"));
        logs.map(|p| std::fs::read_to_string(p).unwrap()).collect()
    }
}

#[test]
fn every_panel_of_the_grafana_dashboard_has_data_in_prometheus() {
    let Some(programs) = prometheus_programs() else {
        return skip("Prometheus is not there (scripts/test-deps.sh)");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let states = Observer::start(broker.port, "ocellus/dev-1/porch/state");
    let health = Observer::start(broker.port, "ocellus/dev-1/health");
    let prometheus = Prometheus::start(&programs, broker.port);
    let _device = Device::start(&configure(dir.path(), &["porch"], broker.port, ""));
    // A board that tells its temperature: not every machine does.
    let mut warm = health.wait("the device's own health", |_| true).json();
    warm["device"] = json!("warm");
    warm["temperature_c"] = json!(48.5);
    check("health", &warm);
    publish(broker.port, "ocellus/warm/health", &warm.to_string(), true);

    let dashboard: Value =
        serde_json::from_str(include_str!("../examples/grafana-dashboard.json")).unwrap();
    let mut expressions = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let series = prometheus.evaluate(
                &expression
                    .replace("$device", ".*")
                    .replace("$__rate_interval", "1m"),
            );
            let labels = &series[0]["metric"];
            assert!(
                labels["device"].is_string() && labels["topic"].is_null(),
                "{labels}"
            );
            // Each curve's name has what it needs.
            let legend = target["legendFormat"].as_str().unwrap();
            for part in legend.split("{{").skip(1) {
                let label = part.split_once("}}").unwrap().0;
                assert!(labels[label].is_string(), "{label}: {labels}");
            }
            expressions += 1;
        }
    }
    assert!(expressions >= 12, "{expressions}");
    let variable = dashboard["templating"]["list"][0]["definition"]
        .as_str()
        .unwrap();
    let metric = variable
        .strip_prefix("label_values(")
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let devices: BTreeSet<String> = prometheus
        .evaluate(metric)
        .iter()
        .map(|s| s["metric"]["device"].to_string())
        .collect();
    assert_eq!(devices, ["\"dev-1\"".to_string(), "\"warm\"".into()].into());

    // Values and units are those of the messages.
    let value = |expression: &str| -> f64 {
        let series = prometheus.evaluate(expression);
        series[0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(
        value("ocellus_device_temperature_celsius{device='warm'}"),
        48.5
    );
    assert_eq!(
        value("ocellus_device_resident_memory_bytes{device='warm'}"),
        warm["rss_bytes"].as_f64().unwrap()
    );
    let taken =
        value("max_over_time(ocellus_camera_inference_seconds{device='dev-1',camera='porch'}[5m])");
    let mut seen = Vec::new();
    while let Some(state) = states.next_within(Duration::ZERO) {
        seen.push(state.json()["infer_ms"].as_f64().unwrap());
    }
    assert!(
        seen.iter().any(|ms| (ms / 1000.0 - taken).abs() < 1e-9),
        "{taken} s, and {seen:?} ms"
    );

    // The page's alerts are rules that hold: this device is silent, since there is none.
    let end = Instant::now() + 3 * DEADLINE;
    loop {
        let rules = prometheus.ask("rules").unwrap()["groups"][0]["rules"].clone();
        let states: Vec<_> = rules
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["state"].as_str(), r["health"].as_str()))
            .collect();
        if states
            == [
                (Some("pending"), Some("ok")),
                (Some("inactive"), Some("ok")),
            ]
        {
            break;
        }
        assert!(Instant::now() < end, "{rules}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Levels with wildcards against a topic.
fn matches(filter: &str, topic: &str) -> bool {
    let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    f.len() == t.len() && f.iter().zip(&t).all(|(f, t)| *f == "+" || f == t)
}

/// The messages of a device that does everything, once each.
fn one_of_each(port: u16, dir: &Path) -> Vec<Seen> {
    let observer = Observer::start(port, "ocellus/#");
    let detector = dir.join("boxes.onnx");
    std::fs::write(&detector, boxes().encode_to_vec()).unwrap();
    let segmenter = dir.join("pixels.onnx");
    std::fs::write(&segmenter, red_pixels().encode_to_vec()).unwrap();
    let more = format!(
        "[smoothing]\nwindow_ms = 0\nmin_duration_ms = 0\n[[model]]\npath = '{}'\n[[model]]\npath = '{}'\n\
         [[camera.zone]]\nid = 'all'\npolygon = [[0, 0], [1, 0], [1, 1], [0, 1]]\n",
        detector.display(),
        segmenter.display()
    );
    let device = Device::start(&configure(dir, &["porch"], port, &more));
    let mut seen = observer.collect("the settings", |s| s.topic.ends_with("max_rate/state"));
    let mut missing: BTreeSet<&str> = [
        "classification",
        "counts",
        "detections",
        "embedding",
        "event",
        "health",
        "info",
        "state",
        "snapshot",
        "result",
        "segments",
        "track",
        "zone",
    ]
    .into();
    missing.retain(|m| !seen.iter().any(|s| s.topic.ends_with(&format!("/{m}"))));
    publish(port, "ocellus/dev-1/porch/enter/set", "0.65", false);
    let mut asked = false;
    let end = Instant::now() + 3 * DEADLINE;
    while !missing.is_empty() {
        assert!(Instant::now() < end, "did not come: {missing:?}");
        let next = observer.wait(&format!("{missing:?}"), |_| true);
        if !asked && next.topic.ends_with("/classification") {
            asked = true;
            publish(
                port,
                "ocellus/dev-1/cmd",
                r#"{"id":"s","op":"snapshot"}"#,
                false,
            );
        }
        missing.remove(next.topic.rsplit('/').next().unwrap());
        seen.push(next);
    }
    assert!(device.stop().success());
    seen.extend(observer.collect("the end", |s| {
        s.topic == "ocellus/dev-1/status" && s.text() == "offline"
    }));
    seen
}

#[test]
fn the_asyncapi_file_and_telegrafs_say_what_is_sent() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let seen = one_of_each(broker.port, dir.path());

    // Every message has its channel, with its payload, its QoS and whether it is retained.
    let api = asyncapi();
    let channels = api["channels"].as_object().unwrap();
    let mut met = BTreeSet::new();
    for message in &seen {
        let filter = |c: &Value| {
            let levels = c["address"].as_str().unwrap().split('/').map(|l| match l {
                "{prefix}" => "ocellus",
                "{device}" | "{camera}" | "{setting}" => "+",
                other => other,
            });
            levels.collect::<Vec<_>>().join("/")
        };
        // The most exact one: `cmd/result` is no camera's topic.
        let channel = channels
            .iter()
            .filter(|(_, c)| matches(&filter(c), &message.topic))
            .min_by_key(|(_, c)| filter(c).matches('+').count());
        let (name, channel) = channel.unwrap_or_else(|| panic!("no channel for {}", message.topic));
        met.insert(name.as_str());
        let (_, described) = channel["messages"]
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap();
        match described["payload"]["schema"]["$ref"].as_str() {
            None => assert!(message.payload.starts_with(&[0xff, 0xd8])),
            Some(reference) => {
                let kind = reference
                    .strip_prefix("./messages-1.0.json#/$defs/")
                    .unwrap();
                match described["contentType"].as_str().unwrap() {
                    "text/plain" => check(kind, &json!(message.text())),
                    _ => check(kind, &message.json()),
                }
            }
        }
        if let Some(qos) = channel["x-mqtt"]["qos"].as_u64() {
            assert_eq!(qos, u64::from(message.qos), "{name}");
        }
    }
    let unmet: Vec<_> = channels
        .keys()
        .filter(|c| !met.contains(c.as_str()))
        .collect();
    assert!(unmet.is_empty(), "never seen: {unmet:?}");

    // Telegraf's topics, tags and keys.
    let telegraf: toml::Table = snippets("toml")
        .iter()
        .find(|s| s.contains("mqtt_consumer"))
        .unwrap()
        .parse()
        .unwrap();
    for input in telegraf["inputs"]["mqtt_consumer"].as_array().unwrap() {
        let topic = input["topics"][0].as_str().unwrap();
        let matching: Vec<_> = seen.iter().filter(|s| matches(topic, &s.topic)).collect();
        assert!(!matching.is_empty(), "{topic}");
        let parsing = &input["topic_parsing"][0];
        assert_eq!(parsing["topic"].as_str(), Some(topic));
        assert_eq!(
            parsing["tags"].as_str().unwrap().split('/').count(),
            topic.split('/').count()
        );
        for message in matching {
            let payload = message.json();
            let key = |name: &str| {
                input
                    .get(name)
                    .and_then(toml::Value::as_str)
                    .map(String::from)
            };
            let time = payload[key("json_time_key").unwrap()]
                .as_str()
                .unwrap()
                .to_string();
            assert_eq!(time.len(), key("json_time_format").unwrap().len());
            for text in input
                .get("json_string_fields")
                .and_then(toml::Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(payload.get(text.as_str().unwrap()).is_some(), "{text}");
            }
        }
    }
    // The series that the page names are numbers of these messages.
    let numbers = |kind: &str| -> BTreeMap<String, Value> {
        let last = seen.iter().rfind(|s| s.topic.ends_with(kind)).unwrap();
        last.json()
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .collect()
    };
    for (measurement, kind) in [
        ("ocellus_camera_", "/porch/state"),
        ("ocellus_device_", "/health"),
    ] {
        let known = numbers(kind);
        let section = PAGE.split("## Telegraf").nth(1).unwrap();
        let series = section.split(measurement).skip(1).map(|rest| {
            rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .next()
                .unwrap()
        });
        for series in series {
            assert!(
                known
                    .get(series)
                    .is_some_and(|v| v.is_number() || v.is_null()),
                "{measurement}{series}"
            );
        }
    }
}

#[test]
fn the_asyncapi_file_is_one() {
    let Some(node) = node_modules() else {
        return skip("AsyncAPI's schema is not installed (scripts/test-deps.sh)");
    };
    let text = std::fs::read_to_string(node.join("@asyncapi/specs/schemas/3.0.0-without-$id.json"))
        .unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let api = asyncapi();
    let errors: Vec<String> = validator
        .iter_errors(&api)
        .map(|e| format!("{e} at {}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut broken = api.clone();
    broken["operations"]["sendInfo"]["action"] = json!("shout");
    assert!(!validator.is_valid(&broken));
    // References within the file lead somewhere.
    for operation in api["operations"].as_object().unwrap().values() {
        for reference in [&operation["channel"], &operation["messages"][0]] {
            let pointer = reference["$ref"]
                .as_str()
                .unwrap()
                .strip_prefix('#')
                .unwrap();
            assert!(api.pointer(pointer).is_some(), "{pointer}");
        }
    }
    let schema: Value = serde_json::from_str(include_str!("../schema/messages-1.0.json")).unwrap();
    for channel in api["channels"].as_object().unwrap().values() {
        let (_, message) = channel["messages"]
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap();
        if let Some(reference) = message["payload"]["schema"]["$ref"].as_str() {
            let pointer = reference.strip_prefix("./messages-1.0.json#").unwrap();
            assert!(schema.pointer(pointer).is_some(), "{pointer}");
        }
    }
}

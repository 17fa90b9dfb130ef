//! A USB camera made of two threads, for a port of a Linux kernel's virtual USB host controller (`vhci-hcd`).
//!
//! In: JPEGs, and a connection to the kernel. Out: a device for which udev loads `uvcvideo`, the driver of real USB
//! cameras: Motion JPEG over a bulk endpoint (USB Video Class 1.0). The kernel sends each transfer over the connection,
//! as USB/IP does over networks (`Documentation/usb/usbip_protocol.rst`): a header of 48 bytes, big-endian, then the data.
//! Whoever makes the connection hands its other end to the kernel, as [`ATTACH`] says. Two threads: one takes the kernel's requests and answers those for the control endpoint, one sends
//! frames. Always holds: an answer and the list of requests that wait for one change together.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Where the kernel is handed a device: a line of port, socket, [`DEVICE_ID`] and [`SPEED`].
pub const ATTACH: &str = "/sys/devices/platform/vhci_hcd.0/attach";
pub const DEVICE_ID: u32 = 65537;
/// High speed.
pub const SPEED: u32 = 3;
pub const WIDTH: u16 = 640;
pub const HEIGHT: u16 = 480;
pub const FPS: u32 = 30;

/// Bytes of a payload, which is what the driver asks for in a transfer. A frame is several.
const PAYLOAD: u32 = 2048;
const FRAME_BYTES: u32 = WIDTH as u32 * HEIGHT as u32 * 2;
/// In units of 100 ns.
const INTERVAL: u32 = 10_000_000 / FPS;
const ENDPOINT: u8 = 1;

const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;

/// The plugged-in camera; unplugged when dropped.
pub struct UsbCamera {
    socket: TcpStream,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    socket: TcpStream,
    /// The driver's requests for data, by their numbers.
    wanted: VecDeque<u32>,
    /// Sent once each, before the usual frame.
    queued: VecDeque<Vec<u8>>,
    usual: Vec<u8>,
    /// Grows when the driver takes requests back: a frame that was begun is not finished.
    stops: u64,
    unplugged: bool,
}

impl UsbCamera {
    /// It sends `jpeg` again and again to the kernel at the other end of `socket`.
    pub fn new(socket: TcpStream, serial: &'static str, jpeg: &[u8]) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                socket: socket.try_clone()?,
                wanted: VecDeque::new(),
                queued: VecDeque::new(),
                usual: jpeg.into(),
                stops: 0,
                unplugged: false,
            }),
            changed: Condvar::new(),
        });
        let (requests, answering) = (socket.try_clone()?, shared.clone());
        std::thread::spawn(move || {
            let _ = take_requests(requests, serial, &answering);
            answering.state.lock().unwrap().unplugged = true;
            answering.changed.notify_all();
        });
        let sending = shared.clone();
        std::thread::spawn(move || send_frames(&sending));
        Ok(Self { socket, shared })
    }

    /// Sends this once, as a frame.
    pub fn send_once(&self, frame: &[u8]) {
        self.shared
            .state
            .lock()
            .unwrap()
            .queued
            .push_back(frame.into());
    }
}

impl Drop for UsbCamera {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// A request's header, as far as this device needs it.
struct Request {
    command: u32,
    number: u32,
    to_host: bool,
    endpoint: u32,
    /// Of a transfer: its length. Of an unlinking: the number of the request that is taken back.
    argument: u32,
    setup: [u8; 8],
}

impl Request {
    fn read(socket: &mut TcpStream) -> io::Result<Self> {
        let mut header = [0; 48];
        socket.read_exact(&mut header)?;
        let word = |i: usize| u32::from_be_bytes(header[4 * i..4 * i + 4].try_into().unwrap());
        let command = word(0);
        Ok(Self {
            command,
            number: word(1),
            to_host: word(3) == 1,
            endpoint: word(4),
            argument: word(if command == 2 { 5 } else { 6 }),
            setup: header[40..].try_into().unwrap(),
        })
    }
}

/// An answer: `command` is the request's plus 2.
fn answer(
    socket: &mut TcpStream,
    command: u32,
    number: u32,
    status: i32,
    length: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut message = Vec::with_capacity(48 + data.len());
    for word in [command, number, 0, 0, 0, status as u32, length] {
        message.extend(word.to_be_bytes());
    }
    message.resize(48, 0);
    message.extend(data);
    socket.write_all(&message)
}

fn take_requests(mut socket: TcpStream, serial: &str, shared: &Shared) -> io::Result<()> {
    let mut probe = probe_control();
    loop {
        let request = Request::read(&mut socket)?;
        let number = request.number;
        if request.command == 2 {
            let mut state = shared.state.lock().unwrap();
            let before = state.wanted.len();
            state.wanted.retain(|n| *n != request.argument);
            let status = if state.wanted.len() < before {
                -ECONNRESET
            } else {
                0
            };
            state.stops += 1;
            answer(&mut state.socket, 4, number, status, 0, &[])?;
            continue;
        }
        if request.endpoint == u32::from(ENDPOINT) {
            shared.state.lock().unwrap().wanted.push_back(number);
            shared.changed.notify_all();
            continue;
        }
        let mut received = vec![
            0;
            if request.to_host {
                0
            } else {
                request.argument as usize
            }
        ];
        socket.read_exact(&mut received)?;
        let answered = control(&request.setup, &received, serial, &mut probe);
        let socket = &mut shared.state.lock().unwrap().socket;
        match answered {
            None => answer(socket, 3, number, -EPIPE, 0, &[])?,
            Some(_) if !request.to_host => answer(socket, 3, number, 0, request.argument, &[])?,
            Some(mut data) => {
                data.truncate(request.argument as usize);
                answer(socket, 3, number, 0, data.len() as u32, &data)?;
            }
        }
    }
}

/// The control endpoint. `None` refuses.
fn control(setup: &[u8; 8], received: &[u8], serial: &str, probe: &mut Vec<u8>) -> Option<Vec<u8>> {
    const PROBE: u8 = 1;
    const COMMIT: u8 = 2;
    let [kind, request, low, high, ..] = *setup;
    match (kind, request) {
        (0x80, 6) => match (high, low) {
            (1, _) => Some(DEVICE.into()),
            (2, _) => Some(configuration()),
            (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
            (3, 1) => Some(string("Ocellus")),
            (3, 2) => Some(string("Test Camera")),
            (3, 3) => Some(string(serial)),
            _ => None,
        },
        // Configuration, interface, a halted endpoint: nothing to do.
        (0x00, 9) | (0x01, 11) | (0x02, 1) => Some(vec![]),
        // GET_STATUS: powered by the bus.
        (0x80..=0x82, 0) => Some(vec![0, 0]),
        // SET_CUR; GET_CUR, _MIN, _MAX, _DEF; GET_LEN; GET_INFO of the streaming interface.
        (0x21, 0x01) if matches!(high, PROBE | COMMIT) => {
            // All that can be asked for is the one mode there is.
            (received.len() == probe.len()).then(|| *probe = probe_control())?;
            Some(vec![])
        }
        (0xA1, 0x81..=0x83 | 0x87) if matches!(high, PROBE | COMMIT) => Some(probe.clone()),
        (0xA1, 0x85) => Some(vec![probe.len() as u8, 0]),
        (0xA1, 0x86) => Some(vec![3]),
        _ => None,
    }
}

fn send_frames(shared: &Shared) {
    let mut frame_id = 0;
    loop {
        let (frame, began) = {
            let mut state = shared.state.lock().unwrap();
            let frame = state.queued.pop_front();
            (frame.unwrap_or_else(|| state.usual.clone()), state.stops)
        };
        frame_id ^= 1;
        let mut payloads = frame.chunks(PAYLOAD as usize - 2).peekable();
        while let Some(payload) = payloads.next() {
            let end_of_frame = u8::from(payloads.peek().is_none()) << 1;
            let mut data = vec![2, 0x80 | end_of_frame | frame_id];
            data.extend(payload);
            let mut state = shared.state.lock().unwrap();
            while state.wanted.is_empty() && !state.unplugged {
                state = shared.changed.wait(state).unwrap();
            }
            if state.unplugged {
                return;
            }
            if state.stops != began {
                break;
            }
            let number = state.wanted.pop_front().expect("it is not empty");
            if answer(&mut state.socket, 3, number, 0, data.len() as u32, &data).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(1) / FPS);
    }
}

/// UVC's video probe and commit controls.
fn probe_control() -> Vec<u8> {
    // No hint, format 1, frame 1.
    let mut control = vec![0, 0, 1, 1];
    control.extend(INTERVAL.to_le_bytes());
    // Key frame rate, P frame rate, compression quality, window size, delay.
    control.extend([0; 10]);
    control.extend(FRAME_BYTES.to_le_bytes());
    control.extend(PAYLOAD.to_le_bytes());
    control
}

/// USB 2.0, interface associations, Linux Foundation's webcam gadget.
const DEVICE: [u8; 18] = [
    18, 1, 0x00, 0x02, 0xEF, 2, 1, 64, 0x6B, 0x1D, 0x02, 0x01, 0x00, 0x01, 1, 2, 3, 1,
];

fn string(text: &str) -> Vec<u8> {
    let mut descriptor = vec![0, 3];
    descriptor.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    descriptor[0] = descriptor.len() as u8;
    descriptor
}

fn configuration() -> Vec<u8> {
    let [w0, w1] = WIDTH.to_le_bytes();
    let [h0, h1] = HEIGHT.to_le_bytes();
    let mut frame = vec![30, 0x24, 7, 1, 0, w0, w1, h0, h1];
    let bits_a_second = FRAME_BYTES * 8 * FPS;
    for word in [bits_a_second, bits_a_second, FRAME_BYTES, INTERVAL] {
        frame.extend(word.to_le_bytes());
    }
    frame.push(1);
    frame.extend(INTERVAL.to_le_bytes());
    let streaming: [&[u8]; 2] = [
        // Motion JPEG, one size.
        &[11, 0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0],
        &frame,
    ];
    let streaming_bytes = 14 + streaming.concat().len() as u8;
    let parts: [&[u8]; 10] = [
        // Two interfaces belong together: a video function.
        &[8, 0x0B, 0, 2, 0x0E, 3, 0, 0],
        // Its control interface: header, camera, USB.
        &[9, 4, 0, 0, 0, 0x0E, 1, 0, 0],
        &[13, 0x24, 1, 0x00, 0x01, 40, 0, 0, 0, 0, 0, 1, 1],
        &[
            18, 0x24, 2, 1, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
        ],
        &[9, 0x24, 3, 2, 0x01, 0x01, 0, 1, 0],
        // Its streaming interface.
        &[9, 4, 1, 0, 1, 0x0E, 2, 0, 0],
        &[
            14,
            0x24,
            1,
            1,
            streaming_bytes,
            0,
            0x80 | ENDPOINT,
            0,
            2,
            0,
            0,
            0,
            1,
            0,
        ],
        streaming[0],
        streaming[1],
        // A bulk endpoint of 512 bytes a packet.
        &[7, 5, 0x80 | ENDPOINT, 2, 0x00, 0x02, 0],
    ];
    let parts = parts.concat();
    let mut all = vec![9, 2];
    all.extend((9 + parts.len() as u16).to_le_bytes());
    all.extend([2, 1, 0, 0x80, 250]);
    all.extend(parts);
    all
}

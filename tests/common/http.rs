//! An HTTP server on loopback that answers as a test wants it to, also wrongly.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What a client asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub path: String,
    /// First byte of its `Range` header.
    pub from: Option<u64>,
}

pub struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// `answer` gets the number of the request (from 0), the request and the connection, which is closed afterwards.
    pub fn start(
        answer: impl Fn(usize, &Asked, &mut TcpStream) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (log, stopped) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for (i, connection) in listener.incoming().enumerate() {
                let mut connection = connection.unwrap();
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = read_request(&connection) else {
                    continue;
                };
                log.lock().unwrap().push(request.clone());
                // A client that has seen enough hangs up: no failure of the server.
                let _ = answer(i, &request, &mut connection);
            }
        });
        Self {
            address,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    /// Serves `content` whole, or from where the client asks.
    pub fn of(content: Vec<u8>) -> Self {
        Self::start(move |_, asked, to| send(to, &content, asked.from, content.len()))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_request(connection: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_string();
    let mut from = None;
    for line in lines.take_while(|l| !l.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    Some(Asked { path, from })
}

/// Answers 200, or 206 from `from` on; the connection ends after byte `until` of the content.
pub fn send(
    to: &mut TcpStream,
    content: &[u8],
    from: Option<u64>,
    until: usize,
) -> std::io::Result<()> {
    let start = from.unwrap_or(0) as usize;
    let head = match from {
        None => "HTTP/1.1 200 OK\r\n".to_string(),
        Some(_) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            content.len() - 1,
            content.len()
        ),
    };
    write!(
        to,
        "{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
        content.len() - start
    )?;
    to.write_all(&content[start.min(until)..until])
}

/// Answers with a status and, if there are any, further header lines.
pub fn status(to: &mut TcpStream, status: &str, headers: &str) -> std::io::Result<()> {
    write!(
        to,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

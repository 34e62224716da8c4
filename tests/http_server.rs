//! `examples/http_server.rs` under load: fifty connections, thousands of requests, of which some panic and some fail.
//! Every failure is counted and told, and nobody else notices (P1, P2, P3).

#[allow(dead_code, reason = "it needs the path alone")]
mod example_output;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

const CONNECTIONS: usize = 50;
const REQUESTS: usize = 40;

struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(example_output::example("http_server"))
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the example starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it says where");
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("it says where");
        Server {
            address: address.parse().expect("an address"),
            child,
            stdout,
        }
    }

    fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// Tells it to quit, and gives what it says at its end.
    fn quit(mut self) -> String {
        let (status, body) = self.connect().get("/quit");
        assert_eq!((status, body.as_str()), (200, "bye\n"));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        assert!(self.child.wait().expect("it ends").success());
        rest
    }
}

/// A client that keeps its connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        // A lost wake shows as a failure, not as a test that hangs.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout can be set");
        Client(BufReader::new(stream))
    }

    fn get(&mut self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("the server reads");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server answers");
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a header");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the body");
        (
            status.expect("a status"),
            String::from_utf8(body).expect("text"),
        )
    }
}

#[test]
fn failing_handlers_harm_nobody_and_are_all_told() {
    let server = Server::start();
    let address = server.address;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            thread::spawn(move || {
                let mut client = Client::to(address);
                let (mut visits, mut failures) = (0, 0);
                for request in 0..REQUESTS {
                    // On the same connection as everything else.
                    let path = match (n + request) % 10 {
                        3 => "/panic",
                        6 => "/error",
                        _ => "/",
                    };
                    let (status, body) = client.get(path);
                    if path == "/" {
                        assert_eq!(status, 200);
                        assert!(body.starts_with("visit "), "{body}");
                        visits += 1;
                    } else {
                        assert_eq!((status, body.as_str()), (500, "sorry\n"));
                        failures += 1;
                    }
                }
                (visits, failures)
            })
        })
        .collect();
    let (mut visits, mut failures) = (0, 0);
    for client in clients {
        let (v, f) = client.join().expect("every request was answered");
        visits += v;
        failures += f;
    }
    assert_eq!(visits + failures, CONNECTIONS * REQUESTS);
    assert_eq!(failures, CONNECTIONS * REQUESTS / 5);
    let (_, stats) = server.connect().get("/stats");
    assert_eq!(
        stats,
        format!("visits {visits} failed {failures} reported {failures} told {failures}\n")
    );
    let end = server.quit();
    assert!(
        end.starts_with(&format!(
            "served {visits} visits; {failures} tasks failed, {failures} of them told\n"
        )),
        "{end}"
    );
    assert!(end.contains("told: "), "{end}");
}

/// A client that goes away in the middle of a request harms nobody; its request is served to its end.
#[test]
fn a_client_that_disconnects_is_no_failure() {
    let server = Server::start();
    for _ in 0..20 {
        let mut gone = TcpStream::connect(server.address).expect("it listens");
        gone.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n")
            .expect("it reads");
        drop(gone);
        let mut half = TcpStream::connect(server.address).expect("it listens");
        half.write_all(b"GET /slow HT").expect("it reads");
    }
    let mut client = server.connect();
    assert_eq!(client.get("/").0, 200);
    assert_eq!(client.get("/slow"), (200, "at last\n".to_owned()));
    let (_, stats) = client.get("/stats");
    assert!(stats.contains("failed 0"), "{stats}");
    let end = server.quit();
    assert!(end.starts_with("served 1 visits; 0 tasks failed"), "{end}");
}

/// A port that is taken is an error of the environment's, told in a line: no panic.
#[test]
fn a_port_that_is_taken_is_said_and_ends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let output = Command::new(example_output::example("http_server"))
        .args(["--port", &address.port().to_string()])
        .output()
        .expect("the example starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with(&format!("cannot listen on {address}: ")),
        "{stderr}"
    );
}

/// What is being served when the server is told to quit is finished.
#[test]
fn quitting_finishes_what_is_being_served() {
    let server = Server::start();
    let mut slow = server.connect();
    let slow = thread::spawn(move || slow.get("/slow"));
    thread::sleep(Duration::from_millis(50));
    let end = server.quit();
    assert_eq!(
        slow.join().expect("it is answered"),
        (200, "at last\n".to_owned())
    );
    assert!(end.contains("0 tasks failed"), "{end}");
}

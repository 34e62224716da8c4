//! The same HTTP/1 server on mainstay and on tokio's current-thread runtime: hyper for the protocol, tokio's sockets and
//! reactor in all of them, a task per connection and one per request. The load comes from another core, over connections
//! that are kept.
//!
//! ```text
//! cargo bench --bench http                              11 rounds of one second each
//! cargo bench --bench http -- --rounds 21 --into benches/RESULTS.md
//! cargo bench --bench http -- --help
//! ```
//!
//! Rounds alternate between the servers, so that what else the machine does hits all of them, and who goes first changes from
//! round to round; what counts is the median of the ratios per round. Every answer is read and checked, and at the end each
//! server says how many it gave.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

#[path = "compare_support/output.rs"]
mod output;
#[path = "compare_support/sections.rs"]
mod sections;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mainstay::Executor;
use output::Output;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

const HELP: &str = "\
The same HTTP/1 server on mainstay and on tokio's current-thread runtime, loaded from another core. Prints a Markdown table.

Usage: cargo bench --bench http -- [OPTIONS]

  --rounds N        rounds, in each of which every server is loaded in turn (11)
  --millis N        how long each is loaded in a round (1000)
  --connections N   how many connections the load comes over (50)
  --server NAME     only this server (mainstay, tokio_local, tokio_spawn); repeatable; for profilers
  --into FILE       put the table also into FILE, between `<!-- http -->` and `<!-- /http -->`; not from a build with
                    debug assertions, whose times mean nothing
  --help            this text";

/// What is sent, and what ends each answer.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";
const HOW_MANY: &[u8] = b"GET /count HTTP/1.1\r\nhost: bench\r\n\r\n";
const HELLO: &[u8] = b"hello, world\n";

// --- the servers --------------------------------------------------------------------------------------------------------

/// What the handlers of a server share.
trait Visits: Clone + Default + 'static {
    fn count(&self) -> u64;
    fn visit(&self);
}

/// Not `Send`, as what handlers share on one thread need not be.
type Local = Rc<Cell<u64>>;

impl Visits for Local {
    fn count(&self) -> u64 {
        self.get()
    }

    fn visit(&self) {
        self.set(self.get() + 1);
    }
}

/// What `tokio::spawn` asks for.
type Shared = Arc<AtomicU64>;

impl Visits for Shared {
    fn count(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    fn visit(&self) {
        self.fetch_add(1, Ordering::Relaxed);
    }
}

async fn respond(count: bool, visits: impl Visits) -> Result<Bytes, String> {
    if count {
        return Ok(format!("{}\n", visits.count()).into());
    }
    visits.visit();
    Ok(Bytes::from_static(HELLO))
}

fn answer(text: Result<Bytes, String>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(
        text.unwrap_or_else(|_| Bytes::from_static(b"sorry\n")),
    )))
}

fn is_count(request: &Request<Incoming>) -> bool {
    request.uri().path() == "/count"
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("a runtime can be made")
}

async fn bind(address: &mpsc::Sender<SocketAddr>) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port is free");
    address
        .send(listener.local_addr().expect("it is bound"))
        .expect("it is waited for");
    listener
}

async fn accept(listener: &TcpListener) -> TokioIo<TcpStream> {
    let (stream, _) = listener.accept().await.expect("a client");
    stream.set_nodelay(true).expect("a socket");
    TokioIo::new(stream)
}

/// The three servers differ in nothing but the names of what spawns.
macro_rules! serve {
    ($address:expr, $visits:ty, $spawn:path, $spawn_fallible:path) => {
        async move {
            let listener = bind(&$address).await;
            let visits = <$visits>::default();
            loop {
                let stream = accept(&listener).await;
                let visits = visits.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let handler = $spawn_fallible(respond(is_count(&request), visits.clone()));
                    async move { answer(handler.await.unwrap_or_else(|e| Err(e.to_string()))) }
                });
                drop($spawn(async move {
                    let connection = http1::Builder::new().serve_connection(stream, service);
                    drop(connection.await);
                }));
            }
        }
    };
}

fn on_mainstay(address: mpsc::Sender<SocketAddr>) {
    let ex = Executor::new();
    runtime().block_on(ex.run_until(serve!(
        address,
        Local,
        mainstay::spawn,
        mainstay::spawn_fallible
    )));
}

fn on_tokio_local(address: mpsc::Sender<SocketAddr>) {
    LocalSet::new().block_on(
        &runtime(),
        serve!(
            address,
            Local,
            tokio::task::spawn_local,
            tokio::task::spawn_local
        ),
    );
}

fn on_tokio_spawn(address: mpsc::Sender<SocketAddr>) {
    runtime().block_on(serve!(address, Shared, tokio::spawn, tokio::spawn));
}

type Serve = fn(mpsc::Sender<SocketAddr>);

const SERVERS: [(&str, Serve); 3] = [
    ("mainstay", on_mainstay),
    ("tokio_local", on_tokio_local),
    ("tokio_spawn", on_tokio_spawn),
];

/// A server that runs, on a thread of its own.
struct Server {
    name: &'static str,
    address: SocketAddr,
    /// Its directory in `/proc`, where there is one.
    thread: Option<PathBuf>,
    /// Requests made to it.
    asked: u64,
    rates: Vec<f64>,
    /// Seconds of processor time a request.
    costs: Vec<f64>,
}

impl Server {
    fn start(name: &'static str, serve: Serve) -> Self {
        let (address, bound) = mpsc::channel();
        let (thread, its_own) = mpsc::channel();
        thread::spawn(move || {
            stay_on_core(0);
            thread.send(this_thread()).expect("it is waited for");
            serve(address);
        });
        Server {
            name,
            thread: its_own.recv().expect("the server starts"),
            address: bound.recv().expect("the server starts"),
            asked: 0,
            rates: Vec::new(),
            costs: Vec::new(),
        }
    }

    /// How long its thread has had a core, where the system tells.
    fn time_run(&self) -> Option<Duration> {
        let schedstat = fs::read_to_string(self.thread.as_ref()?.join("schedstat")).ok()?;
        let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }

    /// Loads it for a while.
    fn load(&mut self, client: &Runtime, options: &Options, time: Duration) {
        let before = self.time_run();
        let (count, took) =
            LocalSet::new().block_on(client, load(self.address, options.connections, time));
        self.asked += count;
        #[expect(clippy::cast_precision_loss, reason = "a figure")]
        let count = count as f64;
        self.rates.push(count / took.as_secs_f64());
        let run = before.and_then(|before| Some(self.time_run()?.saturating_sub(before)));
        self.costs
            .push(run.map_or(f64::NAN, |run| run.as_secs_f64() / count));
    }

    /// What came before has warmed it up.
    fn begin(&mut self) {
        self.rates.clear();
        self.costs.clear();
    }

    /// Asks it how many requests it has answered.
    fn check(&self, client: &Runtime) {
        let told = LocalSet::new().block_on(client, how_many(self.address));
        assert_eq!(told, self.asked, "{}: requests answered", self.name);
    }
}

/// Where the system tells of this thread.
fn this_thread() -> Option<PathBuf> {
    Some(PathBuf::from("/proc").join(fs::read_link("/proc/thread-self").ok()?))
}

/// Keeps this thread on one core, by the program `taskset` where it is there. Else the system puts the threads where it likes,
/// which is on two cores, if two are idle.
fn stay_on_core(core: usize) {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    let Some(id) = this_thread().and_then(|path| Some(path.file_name()?.to_owned())) else {
        return;
    };
    let pinned = Command::new("taskset")
        .args(["-c", "-p", &core.to_string()])
        .arg(id)
        .stdout(Stdio::null())
        .status();
    if !pinned.is_ok_and(|status| status.success()) {
        eprintln!("no `taskset`: the threads are where the system puts them");
    }
}

// --- the load -----------------------------------------------------------------------------------------------------------

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Makes requests over some connections for a while; gives how many, and how long that took.
async fn load(address: SocketAddr, connections: usize, time: Duration) -> (u64, Duration) {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(address).await);
    }
    let began = Instant::now();
    let clients: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::task::spawn_local(requests(stream, began + time)))
        .collect();
    let mut count = 0;
    for client in clients {
        count += client.await.expect("every request was answered");
    }
    (count, began.elapsed())
}

async fn requests(mut stream: TcpStream, end: Instant) -> u64 {
    let mut buffer = [0; 1024];
    let mut count = 0;
    while Instant::now() < end {
        let len = request(&mut stream, REQUEST, HELLO, &mut buffer).await;
        assert!(buffer[..len].starts_with(b"HTTP/1.1 200 OK"));
        count += 1;
    }
    count
}

async fn how_many(address: SocketAddr) -> u64 {
    let mut buffer = [0; 1024];
    let len = request(&mut connect(address).await, HOW_MANY, b"\n", &mut buffer).await;
    let text = String::from_utf8_lossy(&buffer[..len]);
    let count = text.lines().last().and_then(|line| line.parse().ok());
    count.expect("a number")
}

/// Makes one request and reads its answer to the end; gives how long it is.
async fn request(
    stream: &mut TcpStream,
    request: &[u8],
    end: &[u8],
    buffer: &mut [u8; 1024],
) -> usize {
    stream.write_all(request).await.expect("the server reads");
    let mut len = 0;
    loop {
        let read = stream
            .read(&mut buffer[len..])
            .await
            .expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        len += read;
        if buffer[..len].ends_with(end) {
            return len;
        }
    }
}

// --- the figures --------------------------------------------------------------------------------------------------------

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 0 {
        return f64::midpoint(figures[middle - 1], figures[middle]);
    }
    figures[middle]
}

fn print(servers: &[Server], options: &Options) -> Result<String, String> {
    let mut output = Output::default();
    output.line(&format!(
        "Medians of {} rounds of {} ms over {} connections. The ratios are mainstay's figure by the other's, in each round; the \
         processor time is that of the server's thread.",
        options.rounds, options.millis, options.connections
    ))?;
    output.line("")?;
    output.line("| server | requests per second | mainstay to it | µs of processor time per request | mainstay to it |")?;
    output.line("|---|---:|---:|---:|---:|")?;
    let ours = servers.iter().find(|server| server.name == "mainstay");
    let against = |figures: fn(&Server) -> &[f64], server: &Server| {
        let Some(ours) = ours else {
            return "-".to_owned();
        };
        let rounds = figures(ours).iter().zip(figures(server));
        format!("{:.3}", median(rounds.map(|(own, other)| own / other)))
    };
    for server in servers {
        output.line(&format!(
            "| {} | {:.0} | {} | {:.2} | {} |",
            server.name,
            median(server.rates.iter().copied()),
            against(|server| &server.rates, server),
            median(server.costs.iter().copied()) * 1e6,
            against(|server| &server.costs, server),
        ))?;
    }
    Ok(output.into_text())
}

struct Options {
    rounds: usize,
    millis: u32,
    connections: usize,
    servers: Vec<String>,
    into: Vec<PathBuf>,
    help: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        fn number<T: TryFrom<u32>>(option: &str, value: &str) -> Result<T, String> {
            let number = value.parse().ok().filter(|number| *number > 0);
            number
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| format!("{option} needs a number above 0, not {value:?}"))
        }
        let mut options = Options {
            rounds: 11,
            millis: 1_000,
            connections: 50,
            servers: Vec::new(),
            into: Vec::new(),
            help: false,
        };
        while let Some(option) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{option} needs a value"))
            };
            match option.as_str() {
                "--rounds" => options.rounds = number(&option, &value()?)?,
                "--millis" => options.millis = number(&option, &value()?)?,
                "--connections" => options.connections = number(&option, &value()?)?,
                "--server" => {
                    let name = value()?;
                    if !SERVERS.iter().any(|(server, _)| *server == name) {
                        return Err(format!("there is no server {name}"));
                    }
                    options.servers.push(name);
                }
                "--into" => options
                    .into
                    .push(sections::from_where_cargo_was_started(&value()?)),
                "--help" | "-h" => options.help = true,
                // Cargo adds it.
                "--bench" => {}
                _ => return Err(format!("{option}: not understood")),
            }
        }
        Ok(options)
    }

    fn wants(&self, server: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|wanted| wanted == server)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if !options.into.is_empty() && cfg!(debug_assertions) {
        return Err("a build with debug assertions measures nothing that is worth keeping".into());
    }
    let mut servers: Vec<Server> = SERVERS
        .into_iter()
        .filter(|(name, _)| options.wants(name))
        .map(|(name, serve)| Server::start(name, serve))
        .collect();
    stay_on_core(1);
    let client = runtime();
    let time = Duration::from_millis(options.millis.into());
    for server in &mut servers {
        server.load(&client, options, time / 4);
        server.begin();
    }
    let many = servers.len();
    for round in 0..options.rounds {
        eprint!("\rround {} of {}", round + 1, options.rounds);
        for at in 0..many {
            servers[(round + at) % many].load(&client, options, time);
        }
    }
    eprintln!();
    for server in &servers {
        server.check(&client);
    }
    let table = print(&servers, options)?;
    for file in &options.into {
        sections::put_into(file, &[("http".to_owned(), table.clone())])?;
    }
    Ok(())
}

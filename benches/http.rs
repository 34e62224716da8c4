//! The same HTTP/1 server on mainstay and on tokio's `LocalSet`: hyper for the protocol, tokio's sockets and reactor in both,
//! a task per connection and one per request. The load comes from another thread, over 50 connections that are kept.
//!
//! ```text
//! cargo bench --bench http                     11 rounds of one second each
//! cargo bench --bench http -- --rounds 21
//! ```
//!
//! Rounds alternate between the two, so that what else the machine does hits both; what counts is the median of the ratios
//! per round. Every answer is checked.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{cell::Cell, env, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mainstay::Executor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

const CONNECTIONS: usize = 50;
const ROUND: Duration = Duration::from_secs(1);

/// Not `Send`, as what handlers share on one thread need not be.
type State = Rc<Cell<u64>>;

async fn respond(state: State) -> Result<Bytes, String> {
    state.set(state.get() + 1);
    Ok(Bytes::from_static(b"hello, world\n"))
}

fn answer(text: Result<Bytes, String>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(
        text.unwrap_or_else(|_| Bytes::from_static(b"sorry\n")),
    )))
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

fn on_mainstay(address: mpsc::Sender<SocketAddr>) {
    let ex = Executor::new();
    runtime().block_on(ex.run_until(async move {
        let listener = bind(&address).await;
        let state = State::default();
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            let state = Rc::clone(&state);
            let service = service_fn(move |_: Request<Incoming>| {
                let handler = mainstay::spawn_fallible(respond(Rc::clone(&state)));
                async move { answer(handler.await.unwrap_or_else(|e| Err(e.to_string()))) }
            });
            mainstay::spawn(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(connection.await);
            })
            .detach();
        }
    }));
}

fn on_tokio(address: mpsc::Sender<SocketAddr>) {
    LocalSet::new().block_on(&runtime(), async move {
        let listener = bind(&address).await;
        let state = State::default();
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            let state = Rc::clone(&state);
            let service = service_fn(move |_: Request<Incoming>| {
                let handler = tokio::task::spawn_local(respond(Rc::clone(&state)));
                async move { answer(handler.await.unwrap_or_else(|e| Err(e.to_string()))) }
            });
            tokio::task::spawn_local(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(connection.await);
            });
        }
    });
}

fn start(serve: fn(mpsc::Sender<SocketAddr>)) -> SocketAddr {
    let (give, take) = mpsc::channel();
    thread::spawn(move || serve(give));
    take.recv().expect("the server starts")
}

/// Loads a server for a while; gives requests per second.
fn load(client: &Runtime, address: SocketAddr, time: Duration) -> f64 {
    LocalSet::new().block_on(client, async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            streams.push(stream);
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
        f64::from(count) / began.elapsed().as_secs_f64()
    })
}

async fn requests(mut stream: TcpStream, end: Instant) -> u32 {
    let mut buffer = [0; 1024];
    let mut count = 0;
    while Instant::now() < end {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
            .await
            .expect("the server reads");
        let mut len = 0;
        while !buffer[..len].ends_with(b"hello, world\n") {
            let read = stream
                .read(&mut buffer[len..])
                .await
                .expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            len += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK"));
        count += 1;
    }
    count
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds = args
        .iter()
        .position(|arg| arg == "--rounds")
        .and_then(|at| args.get(at + 1)?.parse().ok())
        .unwrap_or(11);
    let servers = [
        ("mainstay", start(on_mainstay)),
        ("tokio_local", start(on_tokio)),
    ];
    let client = runtime();
    for (_, address) in servers {
        load(&client, address, ROUND / 4);
    }
    let mut rates: [Vec<f64>; 2] = Default::default();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        // Who goes first changes from round to round.
        for at in [round % 2, 1 - round % 2] {
            rates[at].push(load(&client, servers[at].1, ROUND));
        }
    }
    eprintln!();
    let ratios = rates[0]
        .iter()
        .zip(&rates[1])
        .map(|(own, tokio)| own / tokio);
    let ratio = median(ratios.collect());
    println!("| server | requests per second |");
    println!("|---|---:|");
    for (at, (name, _)) in servers.iter().enumerate() {
        println!("| {name} | {:.0} |", median(rates[at].clone()));
    }
    println!("\nmedian of {rounds} per-round ratios, mainstay to tokio: {ratio:.3}");
}

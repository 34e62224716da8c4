//! A single-threaded HTTP/1 server: hyper for the protocol, tokio for the sockets, mainstay for the tasks, all on one
//! thread. State is an `Rc`. A handler that panics or fails takes nothing with it but its own request.
//!
//! ```text
//! cargo run --release --example http_server -- --port 8080
//! curl localhost:8080/          counts
//! curl localhost:8080/panic     500; told to the exception handler, the server goes on
//! curl localhost:8080/error     the same, by an `Err`
//! curl localhost:8080/stats     the books
//! curl localhost:8080/quit      graceful end: what is being served is finished
//! ```
//!
//! Tokio's reactor and ours run on the same thread: `tokio_runtime.block_on(executor.run_until(server))`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the server says where it listens, and its books at the end"
)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mainstay::{Executor, LocalHandle};
use tokio::net::TcpListener;

const USAGE: &str = "usage: http_server [--port N]

  --port N   where to listen on 127.0.0.1; 8080 unless given, 0 for any that is free";

/// What all handlers share. Neither `Send` nor behind a lock.
#[derive(Default)]
struct State {
    visits: Cell<u64>,
    /// What the exception handler was told, in order.
    failures: RefCell<Vec<String>>,
    quitting: RefCell<Option<tokio::sync::oneshot::Sender<()>>>,
}

/// Our handle as what hyper and its users spawn with.
#[derive(Clone)]
struct OnMainstay(LocalHandle<'static>);

impl<F> hyper::rt::Executor<F> for OnMainstay
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.0.task().name("connection").spawn(future).detach();
    }
}

#[derive(Debug)]
struct NotToday;

impl fmt::Display for NotToday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the database is not in the mood")
    }
}

/// One request. It runs as a task of its own, so that whatever becomes of it, its connection lives on.
async fn respond(path: String, state: Rc<State>) -> Result<String, NotToday> {
    match path.as_str() {
        "/" => {
            state.visits.set(state.visits.get() + 1);
            Ok(format!("visit {}\n", state.visits.get()))
        }
        "/panic" => panic!("a handler panicked"),
        "/error" => Err(NotToday),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok("at last\n".to_owned())
        }
        "/stats" => {
            let stats = LocalHandle::current().stats();
            Ok(format!(
                "visits {} failed {} reported {} told {}\n",
                state.visits.get(),
                stats.failed,
                stats.reported,
                state.failures.borrow().len()
            ))
        }
        "/quit" => {
            if let Some(quitting) = state.quitting.take() {
                let _ = quitting.send(());
            }
            Ok("bye\n".to_owned())
        }
        _ => Ok(format!("nothing at {path}\n")),
    }
}

async fn serve(
    request: Request<Incoming>,
    state: Rc<State>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let outcome = mainstay::spawn_fallible(respond(path, state)).await;
    let (status, text) = match outcome {
        Ok(Ok(text)) => (StatusCode::OK, text),
        // The exception handler has the details; the client need not.
        Ok(Err(_)) | Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "sorry\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

/// Accepts until it is told to quit, then lets the connections finish.
async fn listen(listener: TcpListener, state: Rc<State>) {
    let (quitting, mut quit) = tokio::sync::oneshot::channel();
    state.quitting.replace(Some(quitting));
    let executor = OnMainstay(LocalHandle::current());
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of file descriptors, say: some will be free soon.
                Err(_) => {
                    mainstay::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ = &mut quit => break,
        };
        let state = Rc::clone(&state);
        let service = service_fn(move |request| serve(request, Rc::clone(&state)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        hyper::rt::Executor::execute(&executor, async move {
            // A client that goes away is no failure of ours.
            drop(connection.await);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The port, by the arguments; none where help is asked for.
fn port() -> Result<Option<u16>, String> {
    let mut port = 8080;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--port" => {
                let value = args.next().ok_or("--port needs a value")?;
                let bad = |_| format!("--port: {value:?} is no port");
                port = value.parse().map_err(bad)?;
            }
            _ => return Err(format!("{arg}: not understood")),
        }
    }
    Ok(Some(port))
}

fn main() -> ExitCode {
    let port = match port() {
        Ok(Some(port)) => port,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let state = Rc::new(State::default());
    let executor = Executor::new();
    let told = Rc::clone(&state);
    executor.set_exception_handler(move |_, report| {
        let exception = report.exception();
        let text = exception.map_or_else(String::new, |exception| exception.message().into_owned());
        told.failures.borrow_mut().push(text);
    });
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("a runtime can be made");
    let server = Rc::clone(&state);
    let served = tokio.block_on(executor.run_until(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        println!("listening on {address}");
        listen(listener, server).await;
        Ok::<_, String>(())
    }));
    if let Err(why) = served {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let stats = executor.stats();
    println!(
        "served {} visits; {} tasks failed, {} of them told",
        state.visits.get(),
        stats.failed,
        stats.reported
    );
    for text in state.failures.borrow().iter().take(3) {
        println!("told: {text}");
    }
    drop(executor);
    ExitCode::SUCCESS
}

//! What the HTTP client costs alone: a loop that POSTs the bytes of one delivery again and again and does nothing else. A
//! process of its own, with the runtime and the client that the gateway has.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{leash, process};

/// What a loop does. The request's bytes come on stdin.
#[derive(Debug, Clone, clap::Args)]
pub struct Posts {
    /// Where to; given several times, each in turn.
    #[arg(long = "url", required = true)]
    pub urls: Vec<String>,
    /// How many requests.
    #[arg(long)]
    pub count: u64,
    /// How many at once.
    #[arg(long)]
    pub concurrency: u64,
}

/// What it came to.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Requests a second.
    pub per_second: f64,
    /// Requests per CPU second.
    pub per_cpu_second: f64,
}

impl Posts {
    /// Runs it, and says what it took.
    pub fn run(&self) -> Result<()> {
        let mut sample = Vec::new();
        std::io::stdin().read_to_end(&mut sample)?;
        let (headers, body) = parse(&sample)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(64)
                .tcp_nodelay(true)
                .build()?;
            let urls: Vec<url::Url> = self
                .urls
                .iter()
                .map(|url| url.parse())
                .collect::<Result<_, _>>()?;
            let (urls, next) = (Arc::new(urls), Arc::new(AtomicU64::new(0)));
            let before = process::cpu_seconds(std::process::id())?;
            let begun = Instant::now();
            let mut loops: JoinSet<Result<()>> = JoinSet::new();
            for _ in 0..self.concurrency {
                let (client, headers, body) = (client.clone(), headers.clone(), body.clone());
                let (urls, next, count) = (Arc::clone(&urls), Arc::clone(&next), self.count);
                loops.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok(());
                        }
                        let url = urls
                            .get(usize::try_from(number % urls.len() as u64)?)
                            .context("a URL")?;
                        let request = client
                            .post(url.clone())
                            .headers(headers.clone())
                            .body(body.clone());
                        let answer = request.send().await?;
                        ensure!(answer.status() == 200, "{}", answer.status());
                        answer.bytes().await?;
                    }
                });
            }
            while let Some(ended) = loops.join_next().await {
                ended??;
            }
            let cpu = process::cpu_seconds(std::process::id())? - before;
            let mut stdout = std::io::stdout();
            writeln!(stdout, "seconds={}\ncpu={cpu}", begun.elapsed().as_secs_f64())?;
            stdout.flush()?;
            Ok(())
        })
    }
}

/// The headers that are no matter of the connection, and the body.
fn parse(sample: &[u8]) -> Result<(HeaderMap, bytes::Bytes)> {
    let at = sample.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = sample.split_at(at.context("a head")? + 4);
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(head)?.trim_end().split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").context("a header")?;
        if !matches!(name.to_ascii_lowercase().as_str(), "host" | "content-length") {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
    }
    Ok((headers, bytes::Bytes::copy_from_slice(body)))
}

/// Runs the loop in a process of its own.
pub async fn measure(posts: Posts, sample: Vec<u8>) -> Result<Cost> {
    let count = posts.count as f64;
    let run = move || -> Result<(f64, f64)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("posts");
        for url in &posts.urls {
            command.args(["--url", url]);
        }
        command.args(["--count", &posts.count.to_string()]);
        command.args(["--concurrency", &posts.concurrency.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        leash::hold(child.id());
        child.stdin.take().context("stdin is piped")?.write_all(&sample)?;
        let lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        let status = child.wait()?;
        leash::release(child.id());
        ensure!(status.success(), "the bare loop ended with {status}");
        let of = |name: &str| -> Result<f64> {
            let found = lines.iter().find_map(|line| line.strip_prefix(name));
            Ok(found.context("the cost")?.parse()?)
        };
        Ok((of("seconds=")?, of("cpu=")?))
    };
    let (seconds, cpu) = tokio::task::spawn_blocking(run).await??;
    ensure!(cpu > 0.0, "too short to be measured");
    Ok(Cost {
        per_second: count / seconds,
        per_cpu_second: count / cpu,
    })
}

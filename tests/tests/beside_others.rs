//! What a tenant's requests wait for while others do their worst: a thousand wrong logins at a time, a tenant that asks
//! for twenty times what it may, a hundred thousand policy rows that are put in force again and again.
//!
//! What is compared, and when the bars hold: `keygate_tests::beside`. The figures are printed either way.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::time::{Duration, Instant};

use keygate_proto::admin::TenantCreateRequest;
use keygate_proto::etcdserverpb::{AuthenticateRequest, RangeRequest};
use keygate_tests::beside::{Disturbance, deliveries, puts, ranges};
use keygate_tests::bundles::Bundle;
use keygate_tests::harness::{Client, Plan, Program, Protection, Server, peers::count_from_env};
use tonic::Code;

/// Connections, and logins of each at a time.
const FLOOD: (usize, usize) = (100, 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_logins_at_a_time_do_not_hold_up_writes() {
    let _alone = ALONE.lock().await;
    // A lockout would refuse most of them before they cost anything.
    let server = start(&["--login-lockout-threshold", "0"]).await;
    let root = server.root().await.unwrap();
    let flood = Disturbance::new().unwrap();
    for connection in 0..FLOOD.0 {
        let client = Client::connect(&server.endpoint).await.unwrap();
        for login in 0..FLOOD.1 {
            // Half of them for a user who exists.
            let name = if login % 2 == 0 { "root".to_owned() } else { format!("nobody-{connection}") };
            let client = client.clone();
            flood.add(|mut flood| async move {
                loop {
                    flood.wait().await;
                    let (name, password) = (name.clone(), "wrong".to_owned());
                    let login = AuthenticateRequest { name, password };
                    let status = client.auth().authenticate(login).await.err();
                    let status = status.ok_or_else(|| anyhow::anyhow!("a wrong password is right"))?;
                    let known = [
                        "etcdserver: authentication failed, invalid user ID or password",
                        "etcdserver: too many requests",
                    ];
                    anyhow::ensure!(known.contains(&status.message()), "{status:?}");
                    flood.done();
                    // As a client waits that is told to.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
    let compared = flood.compare(None, async || puts(&root).await).await.unwrap();
    println!("login flood: puts {compared}");
    assert!(compared.done > 0, "nobody tried to log in meanwhile");
    assert!(compared.keeps_to(1.5), "{compared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_asks_for_twenty_times_its_rate_costs_another_nothing() {
    let _alone = ALONE.lock().await;
    let mut limits = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(
        &mut limits,
        format!("limits: {{tenants: {{greedy: {{requests: {RATE}}}}}}}\n").as_bytes(),
    )
    .unwrap();
    let flags = ["--limits-file", limits.path().to_str().unwrap()];
    let (server, other) = (start(&flags).await, start(&flags).await);
    let modest = found(&server, "modest").await;
    let [flood, control] = [&server, &other].map(async |server| greed(found(server, "greedy").await));
    let (flood, control) = tokio::join!(flood, control);
    for what in ["puts", "ranges", "watch delivery"] {
        let compared = flood
            .compare(Some(&control), async || match what {
                "puts" => puts(&modest).await,
                "ranges" => ranges(&modest).await,
                _ => deliveries(&modest).await,
            })
            .await
            .unwrap();
        println!("greedy tenant: {what} {compared}");
        assert!(compared.done > 100, "the greedy tenant asked only {} times", compared.done);
        assert!(compared.keeps_to(1.3), "{what}: {compared}");
    }
}

/// What the greedy tenant may ask for in a second.
const RATE: u32 = 200;

/// Twenty times as much.
fn greed(greedy: Client) -> Disturbance {
    const CLIENTS: u32 = 8;
    let flood = Disturbance::new().unwrap();
    for _ in 0..CLIENTS {
        let greedy = greedy.clone();
        flood.add(|mut flood| async move {
            let mut next = Instant::now();
            loop {
                flood.wait().await;
                // What was missed while it was not time is not made up for.
                next = next.max(Instant::now() - Duration::from_millis(10))
                    + Duration::from_secs(1) / (20 * RATE / CLIENTS);
                tokio::time::sleep_until(next.into()).await;
                let range = RangeRequest { key: "k".into(), ..Default::default() };
                match greedy.kv().range(range).await {
                    Ok(_) => {}
                    Err(status) if status.code() == Code::ResourceExhausted => {}
                    Err(status) => anyhow::bail!("{status:?}"),
                }
                flood.done();
            }
        });
    }
    flood
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_rows_are_put_in_force_beside_writes() {
    let _alone = ALONE.lock().await;
    let rows = count_from_env("KEYGATE_RELOAD_ROWS", 10_000);
    let (server, other) = (start(&[]).await, start(&[]).await);
    let root = server.root().await.unwrap();
    let reload = reloads(rows, root.clone());
    let control = reloads(rows, other.root().await.unwrap());
    let compared = reload.compare(Some(&control), async || puts(&root).await).await.unwrap();
    println!("reload of {rows} rows: puts {compared}");
    assert!(compared.done > 0, "nothing was put in force meanwhile");
    assert!(compared.keeps_to(1.2), "{compared}");
}

fn reloads(rows: usize, root: Client) -> Disturbance {
    let reload = Disturbance::new().unwrap();
    reload.add(|mut reload| async move {
        // A new one in each measurement, of which the server has no part yet.
        for number in 0.. {
            let bundle = Bundle::of(&table(rows, number), number + 1)?;
            reload.wait().await;
            // In the midst of a measurement.
            tokio::time::sleep(Duration::from_millis(450)).await;
            let began = Instant::now();
            // Counted where it begins: it may end after the measurement.
            reload.done();
            bundle.apply(&root).await?;
            println!("reload: {rows} rows sent and in force in {:.2?}", began.elapsed());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    });
    reload
}

/// Of a thousand users; in each table they own other keys.
fn table(rows: usize, number: u64) -> String {
    (0..rows)
        .map(|row| format!("p, user:u{}, default, /b{number}/{row}/*, readwrite, allow\n", row % 1_000))
        .collect()
}

/// They would disturb each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn start(flags: &[&str]) -> Server {
    Server::start(Plan::new(Program::Keygate, Protection::Password).flags(flags)).await.unwrap()
}

/// The root of a new tenant.
async fn found(server: &Server, name: &str) -> Client {
    let password = "of a root".to_owned();
    let create = TenantCreateRequest { name: name.to_owned(), hosts: Vec::new(), password: password.clone() };
    server.root().await.unwrap().tenants().create(create).await.unwrap();
    let client = Client::connect(&server.endpoint).await.unwrap();
    client.login(&format!("root@{name}"), &password).await.unwrap()
}

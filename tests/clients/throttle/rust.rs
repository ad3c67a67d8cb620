//! Offers puts at an even pace through etcd-client to a server that lets fewer through; see go/throttle.

use std::time::Duration;

const CALLS: usize = 300;

#[tokio::main]
async fn main() {
    let endpoint = std::env::args().nth(1).expect("the server's address");
    let client = etcd_client::Client::connect([endpoint], None).await.expect("a connection");
    let mut open = Vec::new();
    for _ in 0..CALLS {
        let mut client = client.clone();
        open.push(tokio::spawn(async move { client.put("throttled", "rust", None).await }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut done, mut refused) = (0, 0);
    for call in open {
        match call.await.expect("no panic") {
            Ok(_) => done += 1,
            Err(error) => {
                assert!(error.to_string().contains("too many requests"), "{error}");
                refused += 1;
            }
        }
    }
    println!(r#"{{"offered": {CALLS}, "done": {done}, "refused": {refused}}}"#);
}

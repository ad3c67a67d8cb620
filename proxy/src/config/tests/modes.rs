//! The habits of `keygate serve`, and those of the binary called as `etcd`.

use super::*;

#[test]
fn keygate_serves_no_plain_http_and_needs_no_certificate_of_its_own() {
    let config = loaded(Mode::Keygate, &[], &[]).unwrap().config;
    assert_eq!(config.listen_client[0].to_string(), "https://127.0.0.1:2379");
    assert_eq!(config.data_dir.to_str(), Some("keygate.data"));
    assert_eq!(
        config.tls,
        ClientTls::Managed { client_certificates: ClientCertificates::Optional { ca: Ca::Managed } }
    );
    for words in [
        &["--listen-client-urls=http://127.0.0.1:2379"][..],
        &["--listen-metrics-urls=http://127.0.0.1:2381"],
        &["--listen-client-http-urls=http://127.0.0.1:2381"],
    ] {
        assert!(refused(Mode::Keygate, words, &[]).contains("plain HTTP is never served"), "{words:?}");
    }
    // An address that can be dialled is its own advertisement; "any" is not.
    let config = loaded(Mode::Keygate, &["--listen-client-urls=https://10.1.2.3:2379"], &[]).unwrap().config;
    assert_eq!(config.advertise_client[0].to_string(), "https://10.1.2.3:2379");
    assert_ne!(refused(Mode::Keygate, &["--listen-client-urls=https://0.0.0.0:2379"], &[]), "ok");
}

#[test]
fn called_as_etcd_the_flags_decide() {
    let config = loaded(Mode::Etcd, &["--name=n"], &[]).unwrap().config;
    assert_eq!(config.listen_client[0].to_string(), "http://127.0.0.1:2379");
    assert_eq!(config.advertise_client[0].to_string(), "http://localhost:2379");
    assert_eq!(config.data_dir.to_str(), Some("n.etcd"));
    assert_eq!(config.tls, ClientTls::Off);
    let tls = [
        "--cert-file=c",
        "--key-file=k",
        "--listen-client-urls=https://127.0.0.1:1",
        "--advertise-client-urls=https://a:1",
    ];
    let with =
        |more: &[&str]| loaded(Mode::Etcd, &[&tls[..], more].concat(), &[]).map(|loaded| loaded.config.tls);
    let files =
        |client_certificates| ClientTls::Files { cert: "c".into(), key: "k".into(), client_certificates };
    assert_eq!(with(&[]).unwrap(), files(ClientCertificates::Ignored));
    // The CA alone is a demand, as in etcd.
    let required = files(ClientCertificates::Required { ca: Ca::File("ca".into()) });
    assert_eq!(with(&["--trusted-ca-file=ca"]).unwrap(), required);
    assert_eq!(with(&["--trusted-ca-file=ca", "--client-cert-auth"]).unwrap(), required);
    assert!(with(&["--client-cert-auth"]).is_err());
    let auto =
        ["--auto-tls", "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"];
    assert_eq!(
        loaded(Mode::Etcd, &auto, &[]).unwrap().config.tls,
        ClientTls::SelfSigned { validity_years: 1 }
    );
}

#[test]
fn logins_are_locked_out_by_keygate_and_not_by_etcd() {
    let lockout = |mode, words: &[&str]| loaded(mode, words, &[]).unwrap().config.own.login_lockout;
    let (minute, keygate) = (std::time::Duration::from_secs(60), lockout(Mode::Keygate, &[]));
    assert_eq!((keygate.threshold, keygate.user_threshold), (10, 0));
    assert_eq!((keygate.duration, keygate.counter_reset), (5 * minute, 15 * minute));
    assert_eq!(lockout(Mode::Etcd, &[]).threshold, 0);
    assert_eq!(lockout(Mode::Etcd, &["--login-lockout-threshold=3"]).threshold, 3);
    for (words, place) in [
        (&["--login-lockout-duration=10ms"][..], "--login-lockout-duration: at least one second"),
        (&["--login-lockout-counter-reset=0s"], "--login-lockout-counter-reset: at least one second"),
        (&["--login-lockout-user-threshold=9"], "--login-lockout-user-threshold: is below"),
    ] {
        assert!(refused(Mode::Keygate, words, &[]).contains(place), "{words:?}");
    }
}

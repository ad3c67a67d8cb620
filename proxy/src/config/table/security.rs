//! Settings of TLS and of logins.

use super::{
    Flag,
    Group::{Auth, Security},
    Kind, ONE_MEMBER,
    Section::{ClientTransport, PeerTransport},
};
use crate::config::{draft, values};

/// Going on without it would let in a member that the operator shut out.
const NO_REVOCATION: &str = "revocation lists of peers are not checked yet, so a revoked certificate would still be accepted; remove the setting, or issue from a new CA";
const NO_HOSTNAME_RULE: &str = "client certificates are not yet restricted by host name, so more clients would be accepted than you asked for; remove the setting, or issue from a CA of their own";
const NO_GATEWAY: &str = "accepted, has no effect: Keygate does not dial itself";

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Security, "cert-file", Kind::Path, "", "Certificate of the client port, PEM. Read again when it changes.")
        .in_section(ClientTransport, "cert-file")
        .sets(|draft, text| draft::path(&mut draft.cert_file, text)),
    Flag::new(Security, "key-file", Kind::Path, "", "Its key, PEM; nobody but the server may be able to read it.")
        .in_section(ClientTransport, "key-file")
        .sets(|draft, text| draft::path(&mut draft.key_file, text)),
    Flag::new(Security, "client-cert-auth", Kind::Bool, "false", "Require a client certificate.")
        .in_section(ClientTransport, "client-cert-auth")
        .sets(|draft, text| draft::put(&mut draft.client_cert_auth, values::boolean(text))),
    Flag::new(Security, "client-cert-file", Kind::Path, "", "Certificate with which etcd's gateway dials its own client port.")
        .in_section(ClientTransport, "client-cert-file")
        .no_effect(NO_GATEWAY),
    Flag::new(Security, "client-key-file", Kind::Path, "", "Its key.").in_section(ClientTransport, "client-key-file").no_effect(NO_GATEWAY),
    Flag::new(Security, "client-crl-file", Kind::Path, "", "Lists of revoked client certificates, PEM or DER, signed by their authorities. Read again when it changes; connections with a revoked certificate are closed. A list that has expired refuses all certificates of its authority.")
        .sets(|draft, text| draft::path(&mut draft.client_crl_file, text)),
    Flag::new(Security, "client-cert-allowed-hostname", Kind::List, "", "Host names of which a client certificate must carry one.")
        .in_section(ClientTransport, "allowed-hostname")
        .refused(NO_HOSTNAME_RULE),
    Flag::new(Security, "trusted-ca-file", Kind::Path, "", "CA that client certificates are checked against, PEM. Called as etcd, it makes them required, as etcd does.")
        .in_section(ClientTransport, "trusted-ca-file")
        .sets(|draft, text| draft::path(&mut draft.trusted_ca_file, text)),
    Flag::new(Security, "auto-tls", Kind::Bool, "false", "Make a certificate that signs itself, for the client port.")
        .in_section(ClientTransport, "auto-tls")
        .sets(|draft, text| draft::put(&mut draft.auto_tls, values::boolean(text))),
    Flag::new(Security, "peer-cert-file", Kind::Path, "", "Certificate of the peer port.").in_section(PeerTransport, "cert-file").no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-key-file", Kind::Path, "", "Its key.").in_section(PeerTransport, "key-file").no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-client-cert-auth", Kind::Bool, "false", "Require a certificate from other members.")
        .in_section(PeerTransport, "client-cert-auth")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-client-cert-file", Kind::Path, "", "Certificate for dialling other members.")
        .in_section(PeerTransport, "client-cert-file")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-client-key-file", Kind::Path, "", "Its key.").in_section(PeerTransport, "client-key-file").no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-trusted-ca-file", Kind::Path, "", "CA that other members' certificates are checked against.")
        .in_section(PeerTransport, "trusted-ca-file")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-cert-allowed-cn", Kind::List, "", "Common names that other members' certificates may carry.")
        .in_section(PeerTransport, "allowed-cn")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-cert-allowed-hostname", Kind::List, "", "Host names that other members' certificates may carry.")
        .in_section(PeerTransport, "allowed-hostname")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-auto-tls", Kind::Bool, "false", "Make a certificate that signs itself, for the peer port.")
        .in_section(PeerTransport, "auto-tls")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-skip-client-san-verification", Kind::Bool, "false", "Do not check the names in other members' certificates.")
        .in_section(PeerTransport, "skip-client-san-verification")
        .no_effect(ONE_MEMBER),
    Flag::new(Security, "peer-crl-file", Kind::Path, "", "List of revoked peer certificates.").refused(NO_REVOCATION),
    // One year, as etcd: long enough to be forgotten, short enough not to outlive the machine.
    Flag::new(Security, "self-signed-cert-validity", Kind::Unsigned, "1", "Years for which a certificate made by --auto-tls is valid.")
        .sets(|draft, text| draft::put(&mut draft.self_signed_years, values::unsigned32(text))),
    Flag::new(Security, "cipher-suites", Kind::List, "", "Cipher suites of TLS 1.2, by their IANA names; empty leaves the choice to the library.")
        .sets(draft::cipher_suites),
    Flag::new(Security, "cors", Kind::Text, "*", "Origins that a browser may call from.")
        .no_effect("accepted, has no effect: no origin is admitted, because the JSON gateway is not served yet"),
    Flag::new(Security, "host-whitelist", Kind::Text, "*", "Host names accepted in HTTP requests.")
        .no_effect("accepted, has no effect: the Host header of a request is not checked"),
    Flag::new(Security, "tls-min-version", Kind::Choice(&["TLS1.2", "TLS1.3"]), "TLS1.2", "Oldest TLS version.").sets(draft::tls_min),
    Flag::new(Security, "tls-max-version", Kind::Choice(&["", "TLS1.2", "TLS1.3"]), "", "Newest TLS version; empty is the newest there is.")
        .sets(draft::tls_max),
    Flag::new(Auth, "auth-token", Kind::Text, "simple", "Kind of login token: `simple`, or `jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=5m`.")
        .sets(|draft, text| {
            text.clone_into(&mut draft.auth_token);
            Ok(())
        }),
    // bcrypt's own default, about 50 ms a check on the machines of today.
    Flag::new(Auth, "bcrypt-cost", Kind::Unsigned, "10", "Cost of hashing a password, 4 to 31; each step doubles it.")
        .sets(|draft, text| draft::put(&mut draft.bcrypt_cost, values::unsigned(text))),
    Flag::new(Auth, "auth-token-ttl", Kind::Unsigned, "300", "Seconds after its last use for which a simple token is good.")
        .sets(|draft, text| draft::put(&mut draft.auth_token_ttl, values::unsigned32(text))),
];

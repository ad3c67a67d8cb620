//! What is in force on a running server: its bundle, and what the Auth API holds, as files of a bundle.

use std::future::Future;

use keygate_policies::{
    BUNDLE_MODEL,
    bundle::{Bundle, Files, Manifest},
};
use keygate_proto::admin as pb;
use pb::policies_client::PoliciesClient;

use super::{Output, Server, Unusable, unusable};
use crate::cli::remote::{Connection, said};

/// Answers of up to 4 MiB are what gRPC takes by itself; the rows of a large keyspace are more.
const LARGEST_ANSWER: usize = 64 << 20;
const DEFAULT: &str = "default";

pub(super) type Client = PoliciesClient<Connection>;

/// Talks to the server of the flags.
pub(super) fn with_server<T, F>(server: &Server, talk: impl FnOnce(Client) -> F) -> Result<T, Unusable>
where
    F: Future<Output = Result<T, Unusable>>,
{
    let unusable = |error: &dyn std::fmt::Display| unusable(server.output, error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| unusable(&error))?.block_on(async {
        let connection = server.remote.connect().await.map_err(|error| unusable(&format!("{error:#}")))?;
        talk(PoliciesClient::new(connection).max_decoding_message_size(LARGEST_ANSWER)).await
    })
}

/// What the server said no to.
pub(super) fn refused(output: Output, status: tonic::Status) -> Unusable {
    unusable(output, format!("{:#}", said(status)))
}

/// The files of the bundle that is in force; those of an empty one where there is none.
pub(super) async fn bundle_files(client: &mut Client, output: Output) -> Result<Files, Unusable> {
    // All parts of one revision: another one may come in force meanwhile.
    let log = client.log(pb::PolicyLogRequest {}).await.map_err(|status| refused(output, status))?;
    let revision = log.into_inner().in_force;
    if revision == 0 {
        return Ok(empty());
    }
    let (mut tar, mut index) = (Vec::new(), 0);
    loop {
        let part = client.part(pb::PolicyPartRequest { revision, index }).await;
        let pb::PolicyPartResponse { content, parts } =
            part.map_err(|status| refused(output, status))?.into_inner();
        tar.extend_from_slice(&content);
        index += 1;
        if index >= parts {
            break;
        }
    }
    if tar.is_empty() {
        return Ok(empty());
    }
    Files::from_tar(&tar).map_err(|error| unusable(output, error))
}

/// A bundle without rows.
fn empty() -> Files {
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.as_bytes().to_vec());
    files.insert("policy.csv", Vec::new());
    files.insert("roles.csv", Vec::new());
    seal(&mut files);
    files
}

/// Digests for what the files are now.
fn seal(files: &mut Files) {
    let present = files.get("manifest.json").and_then(Manifest::read);
    let manifest = match present {
        Some(present) => present.updated(files, present.revision),
        None => Manifest::of(files, 1),
    };
    files.remove("SIGNATURES");
    files.insert("manifest.json", manifest.to_bytes());
}

/// Adds what the Auth API holds of these tenants; of all without a name.
pub(super) async fn add_tables(
    client: &mut Client,
    files: &mut Files,
    tenant: Option<&str>,
    output: Output,
) -> Result<(), Unusable> {
    let mut tenants = vec![tenant.unwrap_or(DEFAULT).to_owned()];
    let mut next = 0;
    while let Some(name) = tenants.get(next).cloned() {
        let asked = client.tables(pb::PolicyTablesRequest { tenant: name.clone() }).await;
        let told = match asked {
            Ok(told) => told.into_inner(),
            // A bundle may name tenants that are yet to be made.
            Err(status) if status.code() == tonic::Code::NotFound => pb::PolicyTablesResponse::default(),
            Err(status) => return Err(refused(output, status)),
        };
        append(files, "policy.csv", &name, &told.policy);
        append(files, "roles.csv", &name, &told.roles);
        if tenant.is_none() && next == 0 {
            tenants.extend(told.tenants);
        }
        next += 1;
    }
    seal(files);
    Ok(())
}

fn append(files: &mut Files, path: &str, tenant: &str, rows: &str) {
    if rows.is_empty() {
        return;
    }
    let mut text = files.get(path).unwrap_or_default().to_vec();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("# The Auth API's, of {tenant}:\n{rows}").as_bytes());
    files.insert(path, text);
}

pub(super) fn usable(files: &Files, output: Output) -> Result<Bundle, Unusable> {
    Bundle::read(files).map_err(|findings| Unusable {
        output,
        message: format!("what is in force makes no usable bundle ({} found)", findings.len()),
        findings,
    })
}

pub(super) fn of_tenant(server: &Server, tenant: &str) -> Result<Bundle, Unusable> {
    let output = server.output;
    let files = with_server(server, |mut client| async move {
        let mut files = bundle_files(&mut client, output).await?;
        add_tables(&mut client, &mut files, Some(tenant), output).await?;
        Ok(files)
    })?;
    usable(&files, output)
}

/// What is in force for a caller.
pub(super) struct OfCaller {
    pub(super) bundle: Bundle,
    /// Has the Auth API a user of that name?
    pub(super) is_user: bool,
}

/// The same as far as it binds this caller: the platform's own root is bound by the Auth API's rows alone.
pub(super) fn of_caller(server: &Server, tenant: &str, user: &str) -> Result<OfCaller, Unusable> {
    let output = server.output;
    let bundle = binding(server, tenant, user)?;
    let is_user = with_server(server, |mut client| async move {
        let request = pb::PolicyUsersRequest { tenant: tenant.to_owned(), users: vec![user.to_owned()] };
        match client.users(request).await {
            Ok(told) => Ok(!told.into_inner().users.is_empty()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
            Err(status) => Err(refused(output, status)),
        }
    })?;
    Ok(OfCaller { bundle, is_user })
}

fn binding(server: &Server, tenant: &str, user: &str) -> Result<Bundle, Unusable> {
    let output = server.output;
    let both = of_tenant(server, tenant)?;
    let is_root = both.links().iter().any(|link| {
        link.member == keygate_policies::bundle::Subject::User(user.into()) && &*link.role == "auth/root"
    });
    if tenant != DEFAULT || !is_root {
        return Ok(both);
    }
    let files = with_server(server, |mut client| async move {
        let mut files = empty();
        add_tables(&mut client, &mut files, Some(tenant), output).await?;
        Ok(files)
    })?;
    usable(&files, output)
}

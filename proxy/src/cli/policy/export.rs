//! `export` and `drift`: what a server decides by, next to what its bundle says.

use std::path::Path;

use keygate_policies::bundle::Files;
use serde_json::json;

use super::compare;
use super::live::{add_tables, bundle_files, usable, with_server};
use super::{Output, Server, Unusable, Verdict, read, say, unusable};

/// The bundle that is in force, and the same with what the Auth API holds.
fn both(server: &Server) -> Result<(Files, Files), Unusable> {
    let output = server.output;
    with_server(server, |mut client| async move {
        let bundle = bundle_files(&mut client, output).await?;
        let mut all = bundle.clone();
        add_tables(&mut client, &mut all, None, output).await?;
        Ok((bundle, all))
    })
}

pub(super) fn export(folder: &Path, server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let (_, all) = both(server)?;
    let bundle = usable(&all, output)?;
    let failed = |path: &Path, error| unusable(output, format!("cannot write `{}`: {error}", path.display()));
    // Not over somebody's work.
    std::fs::create_dir(folder).map_err(|error| failed(folder, error))?;
    for (path, bytes) in all.iter() {
        let target = folder.join(path);
        let parent = target.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        std::fs::write(&target, bytes).map_err(|error| failed(&target, error))?;
    }
    let (rows, links) = (bundle.rows().len(), bundle.links().len());
    say(&match output {
        Output::Text => format!("wrote `{}`: {rows} rows, {links} links\n", folder.display()),
        Output::Json => {
            format!("{:#}\n", json!({ "folder": folder.display().to_string(), "rows": rows, "links": links }))
        }
    });
    Ok(Verdict::Fine)
}

pub(super) fn drift(path: Option<&Path>, server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let (bundle, all) = both(server)?;
    let bundle = match path {
        Some(path) => read(path, output)?,
        None => usable(&bundle, output)?,
    };
    Ok(compare::drift(&bundle, &usable(&all, output)?, output))
}

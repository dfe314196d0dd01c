//! What the documents point at is there: files move, and nobody reads a link.

use std::path::{Path, PathBuf};

/// Every document of the project, but for what is built or installed.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// What a document's links within the project lead to: a file, empty for the
/// document itself, and a heading, empty for all of it.
fn targets(text: &str) -> Vec<(&str, &str)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let within = targets.filter(|target| !target.contains("://"));
    within.map(|target| target.split_once('#').unwrap_or((target, ""))).collect()
}

/// The headings of a document, as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
    })
}

/// Where a link leads nowhere.
fn lost(folder: &Path, text: &str, (file, heading): (&str, &str)) -> bool {
    let path = folder.join(file);
    if !path.exists() {
        return true;
    }
    if heading.is_empty() || !(file.is_empty() || file.ends_with(".md")) {
        return false;
    }
    let there = if file.is_empty() { text.to_owned() } else { std::fs::read_to_string(path).unwrap() };
    headings(&there).all(|one| one != heading)
}

#[test]
fn what_documents_point_at_is_there() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    documents(project, &mut found);
    assert!(found.contains(&project.join("deploy/SETTINGS.md")), "{found:?}");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        let folder = path.parent().unwrap();
        let lost: Vec<_> = targets(&text).into_iter().filter(|target| lost(folder, &text, *target)).collect();
        assert!(lost.is_empty(), "{}: {lost:?}", path.display());
    }
}

#[test]
fn a_lost_link_is_seen() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        "# A heading\n[a](Cargo.toml) [b](#a-heading) [c](https://example.com/none) [d](none) [e](#none)";
    let lost: Vec<_> = targets(text).into_iter().filter(|target| lost(project, text, *target)).collect();
    assert_eq!(lost, [("none", ""), ("", "none")]);
}

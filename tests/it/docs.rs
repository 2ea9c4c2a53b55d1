//! The book and the README say what is true: commands that exist, every cause of failure, links that lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::support::weightmark;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and the pages of the book, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let book = fs::read_dir(root().join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    let pages = book.chain([root().join("README.md")]);
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The options of each verb, by its `--help`.
fn verbs() -> BTreeMap<String, BTreeSet<String>> {
    let help = weightmark(["--help"]).ok();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let mut verbs: Vec<Vec<&str>> = names.filter(|name| *name != "help").map(|name| vec![name]).collect();
    verbs.push(vec!["claim", "open"]);
    let options = |verb: &[&str]| {
        let help = weightmark(verb.iter().chain(&["--help"])).ok();
        let lines = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
        lines.flat_map(|line| line.split([' ', ',']).filter(|word| word.starts_with('-')).map(str::to_owned)).collect()
    };
    verbs.into_iter().map(|verb| (verb.join(" "), options(&verb))).collect()
}

/// What stands in blocks of these languages, a command a line, and between single backticks.
fn commands(text: &str) -> Vec<String> {
    let (mut commands, mut prose, mut block) = (Vec::new(), String::new(), None);
    for line in text.replace("\\\n", " ").lines() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(matches!(language, "sh" | "text" | "dockerfile")),
            (Some(_), Some(_)) => block = None,
            (None, Some(is_shell)) if is_shell => commands.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => prose.extend([line, "\n"]),
        }
    }
    commands.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    commands
}

/// The words of a command line from each `weightmark` in it to where its own arguments end.
fn invocations<'a>(command: &'a str, verbs: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&'a str>> {
    let words: Vec<&str> =
        command.split_whitespace().map(|word| word.trim_matches(['"', '\'', ',', '[', ']'])).collect();
    let is_program = |i: usize| words[i] == "weightmark" && (i == 0 || !words[i - 1].starts_with("--"));
    let mut starts: Vec<usize> = (0..words.len()).filter(|i| is_program(*i)).map(|i| i + 1).collect();
    if words.first().is_some_and(|first| verbs.contains_key(*first)) {
        starts.push(0); // `verify --name` in prose
    }
    let ends = |word: &&&str| !matches!(**word, "--" | "|" | "#" | "&&" | ";");
    starts.into_iter().map(|start| words[start..].iter().take_while(ends).copied().collect()).collect()
}

#[test]
fn commands_are_those_of_the_program() {
    let verbs = verbs();
    assert!(
        verbs.len() > 15 && verbs["verify"].contains("--high-water") && verbs["encrypt"].contains("-r"),
        "{verbs:?}"
    );
    let mut seen = 0;
    for (path, text) in pages() {
        for command in commands(&text) {
            for words in invocations(&command, &verbs) {
                let Some((verb, arguments)) = words.split_first() else { continue };
                let deeper = arguments.first().map(|next| format!("{verb} {next}"));
                let options = deeper.and_then(|deeper| verbs.get(&deeper)).or_else(|| verbs.get(*verb));
                let options = options.unwrap_or_else(|| panic!("{}: no verb {verb}: {command}", path.display()));
                for option in arguments.iter().filter(|word| word.len() > 1 && word.starts_with('-')) {
                    let name = option.split('=').next().unwrap();
                    assert!(options.contains(name), "{}: no {name}: {command}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "only {seen} commands found: does the test still read them?");
}

#[test]
fn every_cause_has_its_line() {
    let page = fs::read_to_string(root().join("docs/src/verdicts.md")).unwrap();
    let sections: BTreeMap<&str, &str> = page.split("\n## ").filter_map(|section| section.split_once('\n')).collect();
    let files = [
        ("Anywhere", "error.rs"),
        ("Encryption", "error/encryption.rs"),
        ("Signatures", "error/verify.rs"),
        ("Keys", "error/key.rs"),
        ("Formats", "error/format.rs"),
        ("Watermarks and claims", "error/watermark.rs"),
    ];
    for (title, file) in files {
        let source = fs::read_to_string(root().join("src").join(file)).unwrap();
        let causes: Vec<&str> = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let rows = sections[title].lines().filter_map(|line| line.strip_prefix("| `"));
        let words: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let sorted = |mut words: Vec<_>| {
            words.sort_unstable();
            words
        };
        assert_eq!(words, sorted(words.clone()), "{title}: in order");
        assert_eq!(words, sorted(causes), "{title}: as in {file}");
    }
}

#[test]
fn links_lead_somewhere_and_pages_are_listed() {
    for (path, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_there = target.is_empty() || target.contains("://") || path.with_file_name(target).exists();
            assert!(is_there, "{}: no {target}", path.display());
        }
    }
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    for (path, _) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(matches!(name, "SUMMARY.md" | "README.md") || summary.contains(&format!("({name})")), "{name}");
    }
}

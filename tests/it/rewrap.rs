//! Other recipients, same payload: what `rewrap` changes and leaves alone, what a crash leaves behind, and `rekey`.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use weightmark::encryption::{Encryptor, Rewrap};
use weightmark::keys::{Cost, Passphrase, XWingIdentity, load_identity};

use super::support::{Home, Run, python, script, weightmark};

/// The length of the header of a lone file while there is room.
const HEADER: usize = 16 << 10;
const NOTE: &str = "note: whoever could open it before may have kept its key; `rekey` encrypts anew";

/// With `file.wmenc` and the directory `dir`, both to `id.key` under the context `a@1`, and two more identities.
fn sealed() -> Home {
    let home = Home::with_keys();
    home.model("model", 20_000);
    for (input, output) in [("model", "dir"), ("model/model.safetensors", "file.wmenc")] {
        let recipient = home.at("id.key.pub");
        weightmark(["encrypt", &home.at(input), "-r", &recipient, "--context", "a@1", "-o", &home.at(output)]).ok();
    }
    weightmark(["keygen", "identity", "-o", &home.at("second.key")]).ok();
    weightmark(["keygen", "identity", "--x25519", "-o", &home.at("third.key")]).ok();
    home
}

fn id(home: &Home, key: &str) -> String {
    XWingIdentity::load(home.path(key)).unwrap().recipient().id()
}

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    weightmark(["inspect", &home.at(name), "--json"]).json()["envelope"].clone()
}

/// Type and id of each recipient of a group.
fn recipients(home: &Home, name: &str, group: usize) -> Vec<(String, String)> {
    serde_json::from_value(inspect(home, name)["groups"][group]["recipients"].clone()).unwrap()
}

fn rewrap(home: &Home, name: &str, key: &str, change: &[&str]) -> Run {
    weightmark([&["rewrap", &home.at(name), "-i", &home.at(key)], change].concat())
}

/// Whether a key opens an artifact, all of it.
#[track_caller]
fn opens(home: &Home, name: &str, key: &str) -> bool {
    let out = home.at("opened");
    let run = weightmark(["decrypt", &home.at(name), "-i", &home.at(key), "-o", &out]);
    if run.status != 0 {
        run.fails(4, &[name, "none of the identities given can open it"]);
        return false;
    }
    let same = if home.path("opened").is_dir() { ["-r", "model"] } else { ["-a", "model/model.safetensors"] };
    Run::of(std::process::Command::new("diff").args([same[0], &out, &home.at(same[1])])).ok();
    Run::of(std::process::Command::new("rm").args(["-r", &out])).ok();
    true
}

/// Every file at or beneath a path.
fn snapshot(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(path.display().to_string(), fs::read(path).unwrap())]);
    }
    let below = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    below.flat_map(|path| snapshot(&path)).collect()
}

/// What must not change: the encrypted files of a directory, the payload of a lone file.
fn payload(home: &Home, name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = snapshot(&home.path(name));
    files.retain(|path, _| path.ends_with(".wmenc"));
    if let Some(file) = files.get_mut(&home.at("file.wmenc")) {
        file.drain(..HEADER);
    }
    files
}

#[test]
fn recipients_come_and_go_and_the_payload_stays() {
    let home = sealed();
    for name in ["file.wmenc", "dir"] {
        let (before, length) = (payload(&home, name), snapshot(&home.path("file.wmenc"))[&home.at("file.wmenc")].len());
        assert_eq!(before.len(), if name == "dir" { 3 } else { 1 });
        let unchanged = || {
            assert!(payload(&home, name) == before, "{name}");
            assert_eq!(home.read("file.wmenc").len(), length);
            assert!(!home.names().iter().any(|name| name.starts_with('.') || name.ends_with(".rewrap")));
        };
        let x_wing = |key| ("x-wing".to_owned(), id(&home, key));

        let added = rewrap(&home, name, "id.key", &["--add", &home.at("second.key.pub"), "--json"]).json();
        assert_eq!((&added["schema"], &added["artifact"]), (&json!("weightmark/rewrap/1"), &json!(home.at(name))));
        assert_eq!(added["envelope"], inspect(&home, name));
        assert_eq!(recipients(&home, name, 0), [x_wing("id.key"), x_wing("second.key")]);
        assert!(opens(&home, name, "id.key") && opens(&home, name, "second.key"));
        unchanged();

        // once more: wrapped anew, not twice
        let shown = rewrap(&home, name, "second.key", &["--add", &home.at("id.key.pub")]).ok();
        let lines: Vec<_> = ["second.key", "id.key"].map(|key| format!("recipient  x-wing {}", id(&home, key))).into();
        assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), lines);
        assert_eq!(recipients(&home, name, 0), [x_wing("second.key"), x_wing("id.key")]);
        unchanged();

        let shown = rewrap(&home, name, "second.key", &["--remove", &id(&home, "id.key")]).ok();
        assert_eq!(shown.lines().last(), Some(NOTE));
        assert!(!opens(&home, name, "id.key") && opens(&home, name, "second.key"));
        unchanged();

        let shown = rewrap(&home, name, "second.key", &["--recipient", &home.at("third.key.pub")]).ok();
        assert_eq!(shown.lines().last(), Some(NOTE));
        assert_eq!(recipients(&home, name, 0).len(), 1);
        assert!(!opens(&home, name, "second.key") && opens(&home, name, "third.key"));
        rewrap(
            &home,
            name,
            "third.key",
            &["--recipient", &home.at("id.key.pub"), "--recipient", &home.at("third.key.pub")],
        )
        .ok();
        // add and remove at once
        let both = ["--add", &home.at("second.key.pub"), "--remove", &id(&home, "id.key")];
        rewrap(&home, name, "id.key", &both).ok();
        assert!(!opens(&home, name, "id.key") && opens(&home, name, "second.key") && opens(&home, name, "third.key"));
        unchanged();

        let reader = script("read_wmenc.py").to_str().unwrap().to_owned();
        let theirs = home.at(&format!("{name}.theirs"));
        python([reader, home.at("third.key"), home.at(name), theirs]).ok();
    }
    assert_eq!(home.read("file.wmenc.theirs"), home.read("model/model.safetensors"));
    assert_eq!(home.read("dir.theirs/model.safetensors"), home.read("model/model.safetensors"));
}

#[test]
fn changes_that_cannot_be_change_nothing() {
    let home = sealed();
    weightmark(["keygen", "symmetric", "-o", &home.at("shared.key")]).ok();
    fs::set_permissions(home.write("phrase", "open sesame\n"), Permissions::from_mode(0o600)).unwrap();
    let phrase = ["--passphrase-file", &home.at("phrase")];
    let cheap = Passphrase::load(home.path("phrase")).unwrap().cost(Cost { memory: 64, passes: 1, lanes: 1 });
    Encryptor::to([cheap]).encrypt(home.path("model"), home.path("locked")).unwrap();
    let before = snapshot(&home.path("."));
    let (own, second) = (id(&home, "id.key"), home.at("second.key.pub"));
    for name in ["file.wmenc", "dir"] {
        let change = |key: &str, change: &[&str]| rewrap(&home, name, key, change);
        change("id.key", &["--remove", &own]).fails(2, &["without recipients nobody could open it"]);
        change("id.key", &["--remove", "0123456789abcdef"]).fails(2, &["it has no recipient of the id to remove"]);
        let one_wrong = ["--add", &second, "--remove", &own[..15]];
        change("id.key", &one_wrong).fails(2, &["it has no recipient of the id to remove"]);
        change("second.key", &["--add", &second]).fails(4, &[name, "none of the identities given can open it"]);
        change("id.key", &["--add", &home.at("id.key")]).fails(4, &["id.key", "another kind of key"]);
        change("id.key", &["--add", "/nowhere"]).fails(3, &["/nowhere", "cannot open"]);
        change("id.key", &["--add", &second, "--context", "a@2"]).fails(1, &[name, "bound to context \"a@1\""]);
        let problem =
            if name == "dir" { "the directory has no such group" } else { "groups of files need a directory" };
        change("id.key", &["--add", &second, "--group", "tokenizer"]).fails(2, &[problem]);
        weightmark(["rewrap", &home.at(name), "--add", &second]).fails(4, &[name, "no identity was given"]);
        for nonsense in [["--recipient", &second, "--add", &second], ["--recipient", &second, "--remove", &own]] {
            assert_eq!(change("id.key", &nonsense).status, 2, "{nonsense:?}");
        }
        // nor does no change at all, but for whom it opens to
        change("second.key", &[]).fails(4, &[name, "none of the identities given can open it"]);
        change("id.key", &["--context", "a@2"]).fails(1, &[name, "bound to context \"a@1\""]);
        let shown = change("id.key", &[]).ok();
        assert_eq!(shown, format!("{}: rewrapped\nrecipient  x-wing {own}\n", home.at(name)));
    }
    let locked = home.at("locked");
    for recipient in [&second, &home.at("shared.key")] {
        weightmark(["rewrap", &locked, phrase[0], phrase[1], "--add", recipient])
            .fails(2, &["a passphrase must be the only recipient"]);
    }
    for (name, cause) in [
        ("model/model.safetensors", "not encrypted by weightmark"),
        ("dir/model.safetensors.wmenc", "the file belongs to an encrypted directory: open the directory"),
        ("dir/weightmark.keys", "not encrypted by weightmark"),
        ("model", "weightmark.keys: cannot open"),
        ("nowhere", "cannot open"),
    ] {
        rewrap(&home, name, "id.key", &["--add", &second]).fails(3, &[name, cause]);
    }
    Run::of(std::process::Command::new("mkfifo").arg(home.path("fifo"))).ok();
    rewrap(&home, "fifo", "id.key", &["--add", &second]).fails(3, &["fifo", "not a regular file"]);
    fs::remove_file(home.path("fifo")).unwrap();
    assert!(snapshot(&home.path(".")) == before, "{:?}", home.names());

    // but a passphrase can give way to others
    weightmark([
        "rewrap",
        &locked,
        phrase[0],
        phrase[1],
        "--recipient",
        &home.at("shared.key"),
        "--recipient",
        &second,
    ])
    .ok();
    assert!(opens(&home, "locked", "second.key") && opens(&home, "locked", "shared.key"));
    weightmark(["decrypt", &locked, phrase[0], phrase[1], "-o", &home.at("out")])
        .fails(4, &["none of the identities given can open it"]);
}

#[test]
fn a_group_changes_alone() {
    let home = sealed();
    home.write("model/adapters/acme/a.bin", "for acme");
    let (acme, own, grouped) = (home.at("third.key.pub"), home.at("id.key.pub"), home.at("grouped"));
    let group = format!("adapters/acme={acme}");
    weightmark(["encrypt", &home.at("model"), "-r", &own, "--group", &group, "-o", &grouped]).ok();
    let (before, others) = (payload(&home, "grouped"), recipients(&home, "grouped", 0));
    let change =
        |key: &str, change: &[&str]| rewrap(&home, "grouped", key, &[change, &["--group", "adapters/acme"]].concat());
    let second = ["--add", &home.at("second.key.pub")];
    change("id.key", &second).fails(4, &["grouped/weightmark.keys", "none of the identities given can open it"]);
    let all = snapshot(&home.path("grouped"));
    rewrap(&home, "grouped", "third.key", &["--group", "adapters/acme/"]).ok(); // the same, without any change
    assert!(snapshot(&home.path("grouped")) == all);
    for unknown in ["adapters", "acme", "adapters/acme/a.bin", "../adapters/acme"] {
        rewrap(&home, "grouped", "third.key", &[&second[..], &["--group", unknown]].concat())
            .fails(2, &["the directory has no such group"]);
    }
    let shown = change("third.key", &second).ok();
    assert_eq!(shown.lines().count(), 3, "{shown}"); // of the group, and of no other
    assert_eq!((recipients(&home, "grouped", 0), recipients(&home, "grouped", 1).len()), (others, 2));
    // the main group likewise, although its block is in front
    for key in ["k1", "k2", "k3"] {
        weightmark(["keygen", "identity", "-o", &home.at(key)]).ok();
        rewrap(&home, "grouped", "id.key", &["--add", &home.at(&format!("{key}.pub"))]).ok();
    }
    rewrap(&home, "grouped", "third.key", &["--add", &acme])
        .fails(4, &["grouped/weightmark.keys", "none of the identities given can open it"]);
    assert_eq!((recipients(&home, "grouped", 0).len(), recipients(&home, "grouped", 1).len()), (4, 2));
    assert!(payload(&home, "grouped") == before);
    for (key, file) in
        [("k3", "config.json"), ("second.key", "adapters/acme/a.bin"), ("third.key", "adapters/acme/a.bin")]
    {
        let out = format!("{key}.out");
        weightmark(["decrypt", &grouped, "-i", &home.at(key), "--partial", "-o", &home.at(&out)]).ok();
        assert_eq!(home.read(&format!("{out}/{file}")), home.read(&format!("model/{file}")), "{key}");
    }
}

#[test]
fn a_lone_file_is_changed_in_place_while_there_is_room_and_copied_then() {
    let home = sealed();
    let (file, plain) = (home.path("file.wmenc"), home.read("model/model.safetensors"));
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let whole = home.read("file.wmenc");
    let payload = &whole[HEADER..];
    let (mut length, mut inode) = (whole.len(), file.metadata().unwrap().ino());
    let mut in_place = 0;
    for i in 1..=12 {
        let key = home.at(&format!("k{i}"));
        weightmark(["keygen", "identity", "-o", &key]).ok();
        rewrap(&home, "file.wmenc", "id.key", &["--add", &format!("{key}.pub")]).ok();
        let (now, seen) = (home.read("file.wmenc"), file.metadata().unwrap());
        assert!(now.ends_with(payload) && (now.len() - payload.len()).is_multiple_of(4096), "{i}");
        assert_eq!(recipients(&home, "file.wmenc", 0).len(), i + 1);
        assert_eq!(seen.permissions().mode() & 0o777, 0o640, "{i}");
        assert_eq!(now.len() == length, seen.ino() == inode, "{i}");
        in_place += u32::from(now.len() == length);
        (length, inode) = (now.len(), seen.ino());
    }
    assert!((6..12).contains(&in_place) && length > whole.len(), "{in_place} {length}");
    for key in ["id.key", "k1", "k12"] {
        weightmark(["decrypt", &home.at("file.wmenc"), "-i", &home.at(key), "-o", &home.at(&format!("{key}.out"))])
            .ok();
        assert_eq!(home.read(&format!("{key}.out")), plain, "{key}");
    }
    // what has grown does not shrink
    rewrap(&home, "file.wmenc", "k12", &["--recipient", &home.at("id.key.pub")]).ok();
    assert_eq!((home.read("file.wmenc").len(), file.metadata().unwrap().ino()), (length, inode));
    assert!(opens(&home, "file.wmenc", "id.key") && !opens(&home, "file.wmenc", "k12"));
    assert!(!home.names().iter().any(|name| name.starts_with('.') || name.ends_with(".rewrap")));
}

#[test]
fn owner_and_mode_of_what_is_changed_are_kept() {
    let home = sealed();
    for i in 0..12 {
        weightmark(["keygen", "identity", "-o", &home.at(&format!("k{i}"))]).ok();
    }
    let many: Vec<_> = (0..12).flat_map(|i| ["--add".to_owned(), home.at(&format!("k{i}.pub"))]).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let one = ["--add", &home.at("second.key.pub")];
    let is_root = home.path("dir").metadata().unwrap().uid() == 0; // who else could give a file away?
    for (name, place, change) in [
        ("file.wmenc", "file.wmenc", &one[..]), // in place
        ("dir", "dir/weightmark.keys", &one),   // replaced
        ("file.wmenc", "file.wmenc", &many),    // copied
    ] {
        for mode in [0o600, 0o644, 0o660] {
            let whole = home.read(place);
            if is_root {
                chown(home.path(place), Some(65534), Some(65533)).unwrap();
            }
            fs::set_permissions(home.path(place), Permissions::from_mode(mode)).unwrap();
            let before = fs::metadata(home.path(place)).unwrap();
            rewrap(&home, name, "id.key", change).ok();
            let after = fs::metadata(home.path(place)).unwrap();
            assert_eq!(after.permissions().mode() & 0o7777, mode, "{place}");
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()), "{place}");
            assert_eq!(after.ino() == before.ino(), change.len() == 2 && name == "file.wmenc", "{place}");
            home.write(place, whole);
        }
    }
}

#[test]
fn a_link_leads_to_what_is_changed() {
    let home = sealed();
    symlink("file.wmenc", home.path("link")).unwrap();
    symlink("dir", home.path("link.dir")).unwrap();
    let mut add = Vec::new();
    for i in 0..12 {
        let key = home.at(&format!("k{i}"));
        weightmark(["keygen", "identity", "-o", &key]).ok();
        add.extend(["--add".to_owned(), format!("{key}.pub")]);
    }
    rewrap(&home, "link", "id.key", &add.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert!(home.path("link").is_symlink());
    assert_eq!(recipients(&home, "file.wmenc", 0).len(), 13);
    assert_eq!(home.path("file.wmenc").metadata().unwrap().permissions().mode() & 0o022, 0);
    rewrap(&home, "link.dir", "id.key", &["--add", &home.at("second.key.pub")]).ok();
    assert!(home.path("link.dir").is_symlink() && !home.path("dir/weightmark.keys").is_symlink());
    assert_eq!(recipients(&home, "dir", 0).len(), 2);
}

/// `file.wmenc` as it was, and as it is after this change: the same length.
fn before_and_after(home: &Home, change: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let before = home.read("file.wmenc");
    rewrap(home, "file.wmenc", "id.key", change).ok();
    let after = home.read("file.wmenc");
    assert!(before.len() == after.len() && before[HEADER..] == after[HEADER..] && before != after);
    (before, after)
}

/// What is stored while the header of one file becomes that of another.
fn journal(before: &[u8], after: &[u8]) -> Vec<u8> {
    [&before[..HEADER], &after[..HEADER]].concat()
}

#[test]
fn what_a_crash_has_torn_the_next_rewrap_finishes() {
    let home = sealed();
    let (before, after) = before_and_after(&home, &["--add", &home.at("second.key.pub")]);
    let stored = journal(&before, &after);
    let x_wing = |key| ("x-wing".to_owned(), id(&home, key));
    let third = rewrap(&home, "file.wmenc", "id.key", &["--add", &home.at("third.key.pub"), "--json"]).json();
    let third: (String, String) =
        serde_json::from_value(third["envelope"]["groups"][0]["recipients"][2].clone()).unwrap();
    let torn = |end: usize| [&after[..end], &before[end..]].concat();
    let start = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
    let mut scrambled = torn(4096);
    scrambled[..512].fill(0); // not even its magic is left
    for (file, key) in [
        (torn(start + 1), "id.key"),
        (torn(start + 500), "second.key"), // who was about to be added
        (torn(HEADER - 32), "id.key"),     // all but the MAC
        (torn(HEADER - 1), "second.key"),
        (scrambled, "id.key"),
        (after.clone(), "second.key"), // all was written but the journal not removed
    ] {
        home.write("file.wmenc", &file);
        home.write("file.wmenc.rewrap", &stored);
        let unread = weightmark(["decrypt", &home.at("file.wmenc"), "-i", &home.at(key), "-o", &home.at("opened")]);
        if file == after {
            unread.ok();
            fs::remove_file(home.path("opened")).unwrap();
        } else {
            let hint = "hint: a rewrap of it was interrupted: `weightmark rewrap FILE -i IDENTITY` ends it";
            assert_eq!(unread.stderr.lines().nth(1), Some(hint));
            assert!(matches!(unread.status, 1 | 3) && !home.path("opened").exists());
        }
        rewrap(&home, "file.wmenc", key, &["--add", &home.at("third.key.pub")]).ok();
        assert_eq!(recipients(&home, "file.wmenc", 0), [x_wing("id.key"), x_wing("second.key"), third.clone()]);
        assert!(home.read("file.wmenc")[HEADER..] == after[HEADER..]);
        assert!(!home.path("file.wmenc.rewrap").exists());
        assert!(opens(&home, "file.wmenc", "id.key") && opens(&home, "file.wmenc", "third.key"));
    }
    // nothing was written yet: then there is nothing to finish
    home.write("file.wmenc", &before);
    home.write("file.wmenc.rewrap", &stored);
    rewrap(&home, "file.wmenc", "id.key", &["--add", &home.at("third.key.pub")]).ok();
    assert_eq!(recipients(&home, "file.wmenc", 0), [x_wing("id.key"), third]);
    assert!(!home.path("file.wmenc.rewrap").exists());
}

#[test]
fn whoever_is_about_to_lose_a_torn_file_can_undo_the_change() {
    let home = sealed();
    let (second, third) = (home.at("second.key.pub"), home.at("third.key.pub"));
    let (before, after) = before_and_after(&home, &["--recipient", &second]);
    let torn = [&after[..HEADER - 32], &before[HEADER - 32..]].concat();
    let start = |file: &[u8]| {
        home.write("file.wmenc", file);
        home.write("file.wmenc.rewrap", journal(&before, &after));
    };
    let done = || {
        assert!(!home.path("file.wmenc.rewrap").exists());
        assert!(home.read("file.wmenc")[HEADER..] == before[HEADER..]);
    };
    // without any other change each brings back what it opens, to the byte
    for (key, file) in [("id.key", &before), ("second.key", &after)] {
        for front in [&torn, file] {
            start(front);
            rewrap(&home, "file.wmenc", key, &[]).ok();
            done();
            assert!(home.read("file.wmenc") == *file, "{key}");
        }
    }
    // and with both, the change is finished
    start(&torn);
    weightmark(["rewrap", &home.at("file.wmenc"), "-i", &home.at("id.key"), "-i", &home.at("second.key")]).ok();
    assert!(home.read("file.wmenc") == after);
    // what was whole goes to nobody else
    for (key, file) in [("id.key", &after), ("second.key", &before)] {
        start(file);
        rewrap(&home, "file.wmenc", key, &[]).fails(4, &["file.wmenc", "none of the identities given can open it"]);
        done();
        assert!(home.read("file.wmenc") == *file, "{key}");
    }
    // undone, or finished, and then changed
    for (key, other) in [("id.key", "second.key"), ("second.key", "id.key")] {
        start(&torn);
        rewrap(&home, "file.wmenc", key, &["--add", &third]).ok();
        done();
        assert!(opens(&home, "file.wmenc", key) && opens(&home, "file.wmenc", "third.key"), "{key}");
        assert!(!opens(&home, "file.wmenc", other), "{key}");
    }
    // the same change once more
    start(&torn);
    rewrap(&home, "file.wmenc", "id.key", &["--recipient", &second]).ok();
    done();
    assert!(opens(&home, "file.wmenc", "second.key") && !opens(&home, "file.wmenc", "id.key"));
}

#[test]
fn a_journal_that_does_not_help_is_not_applied() {
    let home = sealed();
    let (before, after) = before_and_after(&home, &["--add", &home.at("second.key.pub")]);
    let torn = [&after[..HEADER - 32], &before[HEADER - 32..]].concat(); // all but the MAC was written
    let foreign = {
        let data = home.write("model.safetensors", home.read("model/model.safetensors"));
        let recipient = home.at("id.key.pub");
        weightmark(["encrypt", &data, "-r", &recipient, "--context", "a@1", "-o", &home.at("foreign.wmenc")]).ok();
        let foreign = home.read("foreign.wmenc");
        journal(&foreign, &foreign)
    };
    let (stored, mut broken) = (journal(&before, &after), journal(&before, &after));
    for at in [700, HEADER + 700] {
        broken[at] ^= 1;
    }
    let in_the_way = ["file.wmenc.rewrap: ", "it is in the way, and not ours"];
    let add = ["--add", &home.at("third.key.pub")];
    // the file is torn: nothing is made worse, and the journal stays where it is
    for (journal, status, parts) in [
        (&foreign[..], 1, ["file.wmenc: ", "tampered: the envelope does not authenticate"]),
        (&broken, 1, ["file.wmenc: ", "tampered: the envelope does not authenticate"]),
        (&stored[..2 * HEADER - 2], 3, in_the_way),
        (&stored[..HEADER], 3, in_the_way),
        (b"no header at all, but longer than any magic", 3, in_the_way),
        (b"", 3, in_the_way),
    ] {
        home.write("file.wmenc", &torn);
        home.write("file.wmenc.rewrap", journal);
        rewrap(&home, "file.wmenc", "id.key", &add).fails(status, &parts);
        assert!(home.read("file.wmenc") == torn && home.read("file.wmenc.rewrap") == journal);
    }
    // whoever cannot open either
    home.write("file.wmenc.rewrap", &stored);
    weightmark(["keygen", "identity", "-o", &home.at("nobody.key")]).ok();
    let nobody = rewrap(&home, "file.wmenc", "nobody.key", &add);
    assert!(matches!(nobody.status, 1 | 4), "{}", nobody.stderr);
    assert!(home.read("file.wmenc") == torn && home.read("file.wmenc.rewrap") == stored);
    // not ours, it stays, whatever the file is
    home.write("file.wmenc", &after);
    home.write("file.wmenc.rewrap", "precious");
    rewrap(&home, "file.wmenc", "id.key", &add).fails(3, &in_the_way);
    assert!(home.read("file.wmenc") == after && home.read("file.wmenc.rewrap") == b"precious");
    // the file is whole: a stale journal goes
    for journal in [&foreign, &broken, &journal(&before, &before)] {
        home.write("file.wmenc", &after);
        home.write("file.wmenc.rewrap", journal);
        rewrap(&home, "file.wmenc", "id.key", &add).ok();
        assert_eq!(recipients(&home, "file.wmenc", 0).len(), 3);
        assert!(home.read("file.wmenc")[HEADER..] == after[HEADER..] && !home.path("file.wmenc.rewrap").exists());
    }
    // a link is no journal
    home.write("file.wmenc", &torn);
    home.write("elsewhere", "precious");
    symlink("elsewhere", home.path("file.wmenc.rewrap")).unwrap();
    assert_ne!(rewrap(&home, "file.wmenc", "id.key", &add).status, 0);
    assert!(home.read("file.wmenc") == torn && home.read("elsewhere") == b"precious");
}

#[test]
fn a_stale_journal_lets_nobody_in_again() {
    let home = sealed();
    let (before, after) = before_and_after(&home, &["--add", &home.at("second.key.pub")]);
    home.write("file.wmenc", &before);
    rewrap(&home, "file.wmenc", "id.key", &["--add", &home.at("third.key.pub")]).ok();
    let later = home.read("file.wmenc");
    for whole in [&before, &later] {
        home.write("file.wmenc", whole); // and not open to the second
        home.write("file.wmenc.rewrap", journal(&before, &after));
        rewrap(&home, "file.wmenc", "second.key", &["--add", &home.at("third.key.pub")])
            .fails(4, &["file.wmenc", "none of the identities given can open it"]);
        assert!(home.read("file.wmenc") == *whole && !home.path("file.wmenc.rewrap").exists());
    }
}

#[test]
fn one_at_a_time() {
    let home = sealed();
    let add = ["--add", &home.at("second.key.pub")];
    for (name, place) in [("file.wmenc", "file.wmenc"), ("dir", "dir/weightmark.keys")] {
        let before = snapshot(&home.path("."));
        let held = File::open(home.path(place)).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        rewrap(&home, name, "id.key", &add).fails(3, &[place, "cannot lock", "it is being rewrapped already"]);
        assert!(snapshot(&home.path(".")) == before);
        assert!(opens(&home, name, "id.key")); // readers do not wait
        flock(&held, FlockOperation::Unlock).unwrap(); // even if a process just started still has a copy of it
        rewrap(&home, name, "id.key", &add).ok();
    }
    // many at once: whoever succeeds has changed it, whoever does not has not
    let keys: Vec<_> = (0..8).map(|_| XWingIdentity::generate().unwrap()).collect();
    for name in ["file.wmenc", "dir"] {
        let (path, before) = (home.path(name), recipients(&home, name, 0));
        let owner = load_identity(home.path("id.key")).unwrap();
        let done: Vec<_> = std::thread::scope(|scope| {
            let one = |key: &XWingIdentity| {
                Rewrap::new().also([key.recipient().clone()]).apply(&path, &[&*owner]).map_err(|e| e.to_string())
            };
            let running: Vec<_> = keys.iter().map(|key| scope.spawn(move || one(key))).collect();
            running.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let now: Vec<_> = recipients(&home, name, 0).into_iter().map(|(_, id)| id).collect();
        for (key, done) in keys.iter().zip(&done) {
            assert_eq!(now.contains(&key.recipient().id()), done.is_ok(), "{name} {done:?}");
            if let Err(refused) = done {
                let expected = ["it is being rewrapped already", "it was replaced meanwhile"];
                assert!(expected.iter().any(|cause| refused.ends_with(cause)), "{refused}");
            }
        }
        assert!(done.iter().any(Result::is_ok) && before.iter().all(|(_, id)| now.contains(id)));
        assert!(opens(&home, name, "id.key"));
    }
    assert!(!home.names().iter().any(|name| name.starts_with('.') || name.ends_with(".rewrap")), "{:?}", home.names());
}

#[test]
fn rekey_shuts_out_whoever_had_the_old_key() {
    let home = sealed();
    let before = snapshot(&home.path("dir"));
    for name in ["file.wmenc", "dir"] {
        rewrap(&home, name, "id.key", &["--add", &home.at("third.key.pub")]).ok();
        let old = snapshot(&home.path(name));
        let new = format!("new.{name}");
        let rekey = ["rekey", &home.at(name), "-i", &home.at("third.key"), "-r", &home.at("second.key.pub"), "-o"];
        let shown = weightmark([&rekey[..], &[&home.at(&new)]].concat()).ok();
        let to = format!("{}: encrypted\nto x-wing {}\n", home.at(&new), id(&home, "second.key"));
        assert_eq!(shown, to);
        assert!(snapshot(&home.path(name)) == old);
        assert!(opens(&home, &new, "second.key"));
        assert!(!opens(&home, &new, "id.key") && !opens(&home, &new, "third.key"));
        assert_eq!(recipients(&home, &new, 0).len(), 1);
        // the same files of the same names under the same context, and no two bytes of payload alike but by chance
        let (was, is) = (inspect(&home, name), inspect(&home, &new));
        assert_eq!((&is["context"], &is["groups"][0]["files"]), (&json!("a@1"), &was["groups"][0]["files"]));
        for (path, bytes) in &old {
            if let Some(path) = path.strip_suffix("model.safetensors.wmenc").or(path.strip_suffix("file.wmenc")) {
                let place = if name == "dir" { "new.dir/model.safetensors.wmenc" } else { "new.file.wmenc" };
                let now = home.read(place);
                assert_eq!(now.len(), bytes.len(), "{path}");
                let alike = now.iter().zip(bytes).skip(HEADER + 56).filter(|(a, b)| a == b).count();
                assert!(alike < now.len() / 100, "{place}: {alike} of {}", now.len());
            }
        }
        weightmark([&rekey[..], &[&home.at("moved")], &["--new-context", "b@1"]].concat()).ok();
        let open = |context: &str| {
            let key = home.at("second.key");
            weightmark(["decrypt", &home.at("moved"), "-i", &key, "--context", context, "-o", &home.at("moved.out")])
        };
        open("a@1").fails(1, &["bound to context \"b@1\""]);
        open("b@1").ok();
        Run::of(std::process::Command::new("rm").arg("-r").args([home.at("moved"), home.at("moved.out")])).ok();

        weightmark([&rekey[..], &[&home.at(&new)]].concat()).fails(3, &[&new, "it exists already"]);
        weightmark([&rekey[..], &[&home.at("x")], &["--context", "a@2"]].concat())
            .fails(1, &[name, "bound to context \"a@1\""]);
        let wrong = ["rekey", &home.at(name), "-i", &home.at("second.key"), "-r", &home.at("id.key.pub")];
        weightmark([&wrong[..], &["-o", &home.at("x")]].concat())
            .fails(4, &[name, "none of the identities given can open it"]);
        assert_eq!(weightmark(["rekey", &home.at(name), "-i", &home.at("id.key"), "-o", &home.at("x")]).status, 2);
    }
    let inside = home.at("dir/new");
    weightmark(["rekey", &home.at("dir"), "-i", &home.at("id.key"), "-r", &home.at("id.key.pub"), "-o", &inside])
        .fails(3, &["dir/new", "inside of the input"]);
    weightmark([
        "rekey",
        &home.at("model"),
        "-i",
        &home.at("id.key"),
        "-r",
        &home.at("id.key.pub"),
        "-o",
        &home.at("x"),
    ])
    .fails(3, &["model", "not encrypted by weightmark"]);
    assert!(!home.path("x").exists() && snapshot(&home.path("dir")).keys().eq(before.keys()));
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());
}

#[test]
fn rekey_does_not_encrypt_what_is_tampered() {
    let home = sealed();
    let mut bytes = home.read("file.wmenc");
    bytes[HEADER + 56 + 2 * 16_400] ^= 1;
    home.write("file.wmenc", bytes);
    weightmark([
        "rekey",
        &home.at("file.wmenc"),
        "-i",
        &home.at("id.key"),
        "-r",
        &home.at("id.key.pub"),
        "-o",
        &home.at("x"),
    ])
    .fails(1, &["file.wmenc", "chunk 2 does not authenticate"]);
    assert!(!home.path("x").exists());
}

#[test]
fn rekey_keeps_the_public_index_and_takes_groups() {
    let home = sealed();
    home.write("model/adapters/acme/a.bin", "for acme");
    let (own, second, third) = (home.at("id.key"), home.at("second.key"), home.at("third.key"));
    let (to, group) = (home.at("id.key.pub"), format!("adapters/acme={}", home.at("third.key.pub")));
    let grouped = home.at("grouped");
    let public = ["encrypt", &home.at("model"), "-r", &to, "--group", &group, "--public-index", "-o", &grouped];
    weightmark(public).ok();
    let to_second = ["-r", &home.at("second.key.pub")];
    let swapped = format!("adapters/acme={to}");

    // what is closed cannot be encrypted anew, nor be left out in silence
    for (key, path) in [(&own, "adapters/acme/a.bin"), (&third, "config.json")] {
        weightmark(["rekey", &grouped, "-i", key, to_second[0], to_second[1], "-o", &home.at("x")])
            .fails(4, &["grouped", &format!("encrypted file {path:?} is closed to the identities given")]);
    }
    let rekey = ["rekey", &grouped, "-i", &own, "-i", &third, to_second[0], to_second[1]];
    let done = weightmark([&rekey[..], &["--group", &swapped, "--json", "-o", &home.at("new")]].concat()).json();
    assert_eq!((&done["schema"], &done["output"]), (&json!("weightmark/rekey/1"), &json!(home.at("new"))));
    assert_eq!(done["envelope"], inspect(&home, "new"));
    // who may open a group is said again, and of no group that is none
    let (above, none) = (format!("adapters={to}"), format!("nothing={to}"));
    for groups in [&[][..], &["--group", &above], &["--group", &none]] {
        weightmark([&rekey[..], groups, &["-o", &home.at("x")]].concat())
            .fails(2, &["the directory has groups of files: each needs recipients of its own again"]);
    }
    weightmark([&rekey[..], &["--group", &swapped, "--group", &none, "-o", &home.at("x")]].concat())
        .fails(2, &["a group without files: is its path right?"]);
    weightmark([&rekey[..], &["--group", &swapped, "--partial", "-o", &home.at("x")]].concat())
        .fails(2, &["--partial would leave files out of the new one"]);
    // further ones may be made
    let further = ["--group", &swapped, "--group", &format!("tokenizer={to}"), "-o", &home.at("further")];
    weightmark([&rekey[..], &further].concat()).ok();
    assert_eq!(inspect(&home, "further")["groups"].as_array().unwrap().len(), 3);
    assert!(!home.path("x").exists());
    let (was, is) = (inspect(&home, "grouped"), inspect(&home, "new"));
    assert_eq!((&is["public"], is["public"].as_array().unwrap().len()), (&was["public"], 1));
    let files = |seen: &serde_json::Value| [0, 1].map(|i| seen["groups"][i]["files"].clone());
    assert_eq!(files(&is), files(&was));
    let closed = |key: &str, out: &str| {
        let run = weightmark(["decrypt", &home.at("new"), "-i", key, "--partial", "-o", &home.at(out), "--json"]);
        run.json()["closed"].clone()
    };
    assert_eq!(closed(&second, "by-second"), json!(["adapters/acme/a.bin"]));
    assert_eq!(closed(&own, "by-own"), json!(["config.json", "model.safetensors", "tokenizer/vocab.txt"]));
    assert_eq!(home.read("by-own/adapters/acme/a.bin"), b"for acme");
    weightmark(["decrypt", &home.at("new"), "-i", &third, "-o", &home.at("x")])
        .fails(4, &["none of the identities given can open it"]);
}

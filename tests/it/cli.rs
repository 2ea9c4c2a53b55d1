//! The command line as a user meets it: streams, exit status, JSON, and the main job on a small model.

use std::process::{Command, Stdio};

use serde_json::json;

use super::support::{Home, Run, weightmark};

#[test]
fn the_main_job_and_its_undoing() {
    let home = Home::with_keys();
    home.model("model", 200_000);
    let done = weightmark([
        "protect",
        &home.at("model"),
        "-o",
        &home.at("out"),
        "--owner-key",
        &home.at("owner.key"),
        "--signing-key",
        &home.at("release.pem"),
        "-r",
        &home.at("id.key.pub"),
        "--copy",
        "licensee-0017",
        "--context",
        "acme/test@1",
        "--json",
    ])
    .json();
    assert_eq!(done["schema"], "weightmark/protect/1");
    assert_eq!((&done["files"], &done["mark"]["tensors"]), (&json!(3), &json!(2)));
    let record: serde_json::Value = serde_json::from_slice(&home.read("out.record.json")).unwrap();
    assert_eq!((&record["schema"], &record["mark"]), (&json!("weightmark/record/1"), &done["mark"]));
    assert!(!home.names().iter().any(|name| name.starts_with('.')), "{:?}", home.names());

    let opening = ["-i", &home.at("id.key"), "--context", "acme/test@1"];
    weightmark(["decrypt", &home.at("out"), "-o", &home.at("plain"), opening[0], opening[1]]).ok();
    assert_eq!(home.read("plain/config.json"), home.read("model/config.json"));
    assert_eq!(home.read("plain/tokenizer/vocab.txt"), home.read("model/tokenizer/vocab.txt"));
    assert_ne!(home.read("plain/model.safetensors"), home.read("model/model.safetensors"));

    // plain, and encrypted as it is: the same answers
    home.write("copies", "licensee-0016\n\nlicensee-0017\nlicensee-0018\n");
    for (place, flags) in [("plain", &[][..]), ("out", &opening[..])] {
        let verify = ["verify", &home.at(place), "--key", &home.at("release.pem.pub"), "--json"];
        let verified = weightmark(verify.iter().chain(flags)).json();
        assert_eq!((&verified["verified"], &verified["files"]), (&json!(true), &json!(3)));
        let detect = [
            "detect",
            &home.at(place),
            "--original",
            &home.at("model"),
            "--owner-key",
            &home.at("owner.key"),
            "--copies",
            &home.at("copies"),
            "--json",
        ];
        let found = weightmark(detect.iter().chain(flags)).json();
        assert_eq!(found["schema"], "weightmark/detect/1");
        assert_eq!((&found["detected"], &found["copy"]["label"]), (&json!(true), &json!("licensee-0017")));
        assert!(found["log10_p"].as_f64().unwrap() < -100.0, "{found}");
    }
}

#[test]
fn not_detected_and_not_verified_exit_1_with_json() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let detect = weightmark([
        "detect",
        &home.at("model"),
        "--original",
        &home.at("model"),
        "--owner-key",
        &home.at("owner.key"),
        "--json",
    ]);
    assert_eq!(detect.status, 1);
    assert!(detect.stdout.contains("\"detected\":false"), "{}", detect.stdout);

    weightmark(["sign", &home.at("model"), "--key", &home.at("release.pem")]).ok();
    home.write("model/config.json", "{}");
    let verify = weightmark(["verify", &home.at("model"), "--key", &home.at("release.pem.pub"), "--json"]);
    assert_eq!(verify.status, 1);
    let object: serde_json::Value = serde_json::from_str(&verify.stdout).unwrap();
    let error = json!({"code": "digest-mismatch", "path": "config.json"});
    assert_eq!(object, json!({"schema": "weightmark/verify/1", "verified": false, "error": error}));
}

#[test]
fn inspect_needs_no_key() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    weightmark(["sign", &home.at("model"), "--key", &home.at("release.pem")]).ok();
    let plain = weightmark(["inspect", &home.at("model"), "--json"]).json();
    assert_eq!(plain["files"][1]["path"], "model.safetensors");
    assert_eq!(plain["files"][1]["tensors"].as_array().unwrap().len(), 3);
    let signature = &plain["signatures"][0];
    assert_eq!(signature["path"], "model.sig");
    assert!(signature["claims"].as_str().unwrap().starts_with("3 files of \"model\", by key "), "{signature}");

    weightmark(["encrypt", &home.at("model"), "-r", &home.at("id.key.pub"), "--context", "c@1", "-o", &home.at("enc")])
        .ok();
    let sealed = weightmark(["inspect", &home.at("enc"), "--json"]).json();
    assert_eq!((&sealed["encrypted"], &sealed["envelope"]["context"]), (&json!(true), &json!("c@1")));
    assert_eq!(sealed["envelope"]["groups"][0]["files"].as_array().unwrap().len(), 4);
    let text = weightmark(["inspect", &home.at("enc")]).ok();
    assert!(text.contains("model.safetensors") && text.contains("not authenticated"), "{text}");
}

#[test]
fn a_single_file_keeps_its_signature_beside_it() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let file = home.at("model/model.safetensors");
    weightmark(["sign", &file, "--key", &home.at("release.pem")]).ok();
    weightmark(["verify", &file, "--key", &home.at("release.pem.pub")]).ok();
    let mut bytes = home.read("model/model.safetensors");
    *bytes.last_mut().unwrap() ^= 1;
    home.write("model/model.safetensors", bytes);
    weightmark(["verify", &file, "--key", &home.at("release.pem.pub")]).fails(1, &["digest mismatch"]);
}

#[test]
fn usage_errors_exit_2_and_help_exits_0() {
    for args in [&["frobnicate"][..], &["encrypt"], &["keygen", "owner", "-o", "x"], &["verify", "x"], &[]] {
        assert_eq!(weightmark(args).status, 2, "{args:?}");
    }
    for verb in ["protect", "keygen", "encrypt", "decrypt", "inspect", "sign", "verify", "embed", "detect"] {
        let help = weightmark([verb, "--help"]).ok();
        assert!(help.contains("Usage: weightmark"), "{help}");
    }
}

#[test]
fn a_broken_pipe_is_success_and_data_stays_off_stderr() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_weightmark"))
        .args(["inspect", &home.at("model")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));

    let run: Run = weightmark(["inspect", &home.at("model")]);
    assert!(run.stderr.is_empty() && !run.stdout.contains('\x1b'));
}

#[test]
fn no_stays_no_when_nobody_reads_the_answer() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    weightmark(["sign", &home.at("model"), "--key", &home.at("release.pem")]).ok();
    home.write("model/config.json", "tampered");
    let (model, public, owner) = (home.at("model"), home.at("release.pem.pub"), home.at("owner.key"));
    for args in [
        &["verify", &model, "--key", &public, "--json"][..],
        &["detect", &model, "--original", &model, "--owner-key", &owner],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weightmark"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{args:?}");
    }
}

#[test]
fn every_failed_verify_has_a_json_answer() {
    let home = Home::with_keys();
    home.model("model", 50_000);
    let answer = |args: &[&str]| -> (i32, serde_json::Value) {
        let run = weightmark(["verify", "--json", "--key", &home.at("release.pem.pub")].iter().chain(args));
        (run.status, serde_json::from_str(&run.stdout).unwrap())
    };
    let (model, file) = (home.at("model"), home.at("model/model.safetensors"));
    for (args, status, code) in [
        (&[model.as_str()][..], 1, "no-signature"),
        (&[&file], 1, "no-signature"),
        (&[&model, "--context", "a@1"], 1, "tampered"),
        (&["/nowhere"], 3, "input"),
    ] {
        let (found, object) = answer(args);
        assert_eq!(
            (found, &object["verified"], &object["error"]["code"]),
            (status, &json!(false), &json!(code)),
            "{args:?}"
        );
    }
}

#[test]
fn a_recipient_may_be_text_and_several_may_open() {
    let home = Home::with_keys();
    weightmark(["keygen", "identity", "-o", &home.at("second.key")]).ok();
    let text = String::from_utf8(home.read("id.key.pub")).unwrap();
    home.write("data", "weights");
    weightmark([
        "encrypt",
        &home.at("data"),
        "-r",
        text.trim(),
        "-r",
        &home.at("second.key.pub"),
        "-o",
        &home.at("data.wmenc"),
    ])
    .ok();
    for key in ["id.key", "second.key"] {
        weightmark(["decrypt", &home.at("data.wmenc"), "-i", &home.at(key), "-o", &home.at(&format!("{key}.out"))])
            .ok();
        assert_eq!(home.read(&format!("{key}.out")), b"weights");
    }
}

#[test]
fn the_text_of_a_recipient_is_not_looked_for_in_a_file() {
    let home = Home::new();
    for key in ["own", "decoy"] {
        weightmark(["keygen", "identity", "--x25519", "-o", &home.at(key)]).ok();
    }
    let data = home.write("data", "weights");
    let text = String::from_utf8(home.read("own.pub")).unwrap();
    let text = text.lines().find(|line| line.starts_with("wmrecipient-x25519")).unwrap();
    let mistyped = "wmrecipient1qqqq";
    for name in [text, mistyped] {
        home.write(name, home.read("decoy.pub"));
    }
    let encrypt = |to: &str| {
        let args = ["encrypt", &data, "-r", to, "-o", &home.at("data.wmenc")];
        Run::of(Command::new(env!("CARGO_BIN_EXE_weightmark")).args(args).current_dir(home.path(".")))
    };
    encrypt(mistyped).fails(4, &["recipient", "mistyped"]);
    encrypt(text).ok();
    weightmark(["decrypt", &home.at("data.wmenc"), "-i", &home.at("own"), "-o", &home.at("out")]).ok();
    assert_eq!(home.read("out"), b"weights");
}

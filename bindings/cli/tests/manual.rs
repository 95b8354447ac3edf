// SPDX-License-Identifier: BSD-2-Clause
//! What `make install` gives shells and man(1): `mptunnel completions` and `mptunnel man`.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use mptunnel_core::options::{OPTIONS, Place};
use support::{MPTUNNEL, World, output};

/// What `mptunnel` prints, which has to succeed.
#[track_caller]
fn print(args: &[&str]) -> String {
    let (code, text, error) = output(World::without_key().command(MPTUNNEL, args));
    assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}");
    text
}

/// What bash offers for a command line, of which the last word is incomplete.
fn offered(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (program, last) = (words[0], words.len() - 1);
    let script = format!(
        "source <(\"$0\" completions bash); COMP_WORDS=({line}); COMP_CWORD={last}; \
         _{program} {program} '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[last],
        words[last - 1],
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script, MPTUNNEL]);
    let (code, text, error) = output(bash);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{line}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_their_words() {
    assert_eq!(offered("mptunnel st"), ["status"]);
    assert_eq!(offered("mptunnel status --pro"), ["--prometheus"]);
    assert_eq!(offered("mpclient --mod"), ["--mode"]);
    assert_eq!(offered("mpclient --mode wei"), ["weighted"]);
    assert_eq!(offered("mpserver --encrypt o"), ["on", "off"]);
    assert_eq!(offered("mptunnel ping --failback n"), ["never"]);
    assert_eq!(offered("mptunnel set flows"), ["flows"]);
    assert_eq!(offered("mptunnel get key-"), ["key-file"]);
}

/// What fish offers for a command line, of which the last word is incomplete, without the help.
fn offered_by_fish(line: &str) -> Option<Vec<String>> {
    let world = World::without_key();
    fs::write(world.root.join("file"), "").unwrap();
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", "$argv[1] completions fish | source; complete -C $argv[2]"]);
    fish.args([MPTUNNEL, line]).current_dir(&world.root).env("HOME", &world.root);
    let outcome = match fish.output() {
        Ok(outcome) => outcome,
        Err(_) => {
            eprintln!("NOT RUN: fish is not installed");
            return None;
        }
    };
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{line}: {outcome:?}");
    let text = String::from_utf8(outcome.stdout).unwrap();
    let words = text.lines().map(|line| line.split('\t').next().unwrap().to_owned());
    // Directories are offered wherever files are.
    Some(words.filter(|word| !word.ends_with('/')).collect())
}

#[test]
fn fish_completes_words_that_stand_alone_and_files_only_where_they_belong() {
    let live = OPTIONS.iter().filter(|spec| spec.live && spec.scope.covers(Place::ServerProgram));
    let live: Vec<&str> = live.map(|spec| spec.key).collect();
    let Some(keys) = offered_by_fish("mptunnel set ") else { return };

    assert!(live.iter().all(|key| keys.iter().any(|offered| offered == key)), "{keys:?}");
    assert!(!keys.iter().any(|offered| offered == "key-file" || offered == "file"), "{keys:?}");
    for (line, words) in [
        ("mptunnel set failb", &["failback"][..]),
        ("mptunnel set flows ", &[]),
        ("mptunnel get key-f", &["key-file"]),
        ("mptunnel path re", &["remove"]),
        ("mptunnel path remove ", &[]),
        ("mptunnel explain ", &[]),
        ("mptunnel completions ", &["bash", "fish", "zsh"]),
        ("mptunnel completions zsh mps", &["mpserver"]),
        ("mptunnel pubkey ", &["file"]),
        ("mpclient 3000 ", &["file"]),
        ("mpclient --mode wei", &["weighted"]),
        ("mpserver 2000 ", &[]),
    ] {
        assert_eq!(offered_by_fish(line).unwrap(), words, "{line}");
    }
}

#[test]
fn completions_of_bash_are_understood_by_bash() {
    let mut bash = Command::new("bash");
    let mut bash = bash.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(print(&["completions", "bash"]).as_bytes()).unwrap();

    let outcome = bash.wait_with_output().unwrap();

    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
}

#[test]
fn each_shell_gets_completions_of_one_program_or_of_all() {
    for (shell, sign) in [
        ("bash", " -F _mpserver "),
        ("zsh", "#compdef mpserver"),
        ("fish", "complete -c mpserver "),
    ] {
        assert!(print(&["completions", shell]).contains(sign), "{shell}");
        assert!(print(&["completions", shell, "mpserver"]).contains(sign), "{shell}");
        assert!(!print(&["completions", shell, "mpclient"]).contains(sign), "{shell}");
    }
}

#[test]
fn the_manual_has_every_option_and_command() {
    for (program, place) in [("mpclient", Place::ClientProgram), ("mpserver", Place::ServerProgram)]
    {
        let page = print(&["man", program]);
        for spec in OPTIONS.iter().filter(|spec| spec.scope.covers(place)) {
            // The hyphen of an option is a minus there, so that it can be copied.
            let flag = format!("\\fB\\-\\-{}\\fR", spec.key.replace('-', "\\-"));
            assert!(page.contains(&flag), "{flag} of {program}");
        }
        // Examples keep their lines.
        assert!(page.contains("\n.nf\n  "), "{page}");
    }
    let page = print(&["man"]);
    for command in ["bridge", "doctor", "status", "completions"] {
        assert!(page.contains(&format!("mptunnel\\-{command}(1)")), "{page}");
    }
    let (code, _, error) =
        output(World::without_key().command(MPTUNNEL, &["man", "mptunnel-nothing"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("there are mptunnel, mptunnel-genpsk,"), "{error}");
}

#[test]
fn pages_of_the_manual_are_set_without_a_warning() {
    let world = World::without_key();
    print(&["man", "--output", world.root.to_str().unwrap()]);
    let pages = fs::read_dir(&world.root).unwrap().flatten().map(|entry| entry.path());
    let pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|e| e == "1")).collect();
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains("\n.SH NAME\n") && text.contains("\n.SH SYNOPSIS\n"), "{text}");
        assert_eq!(text.matches("\n.nf\n").count(), text.matches("\n.fi\n").count(), "{page:?}");
    }

    let mut groff = Command::new("groff");
    groff.args(["-ww", "-man", "-Tutf8"]).args(&pages);
    match groff.output() {
        Ok(outcome) => assert_eq!(String::from_utf8_lossy(&outcome.stderr), ""),
        Err(_) => eprintln!("NOT RUN: groff is not installed"),
    }
}

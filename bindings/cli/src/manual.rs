// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel completions` and `mptunnel man`: what shells and man(1) want to know of the three
//! programs, made of the definitions from which these read their arguments.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, StyledStr};
use clap::{Arg, Args, Command, ValueEnum, ValueHint};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use mptunnel_core::options::{Kind, OPTIONS, OptionSpec, Place};

use crate::args::{client_command, server_command};
use crate::exit::{Exit, fail};
use crate::terminal::write_out;

/// Print what completes the command lines of a shell
///
/// `make install` puts it where shells look. Without PROGRAM it is for all three programs.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = COMPLETIONS_EXAMPLE)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: ShellName,
    /// For this program alone
    #[arg(value_enum)]
    program: Option<Program>,
}

/// Print a page of the manual
///
/// `make install` puts the pages where man(1) looks.
#[derive(Args, Clone, Debug)]
#[command(after_help = MAN_EXAMPLE)]
pub struct ManArgs {
    /// A program, or a command of mptunnel such as mptunnel-bridge
    #[arg(default_value = "mptunnel")]
    page: String,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    output: Option<PathBuf>,
}

const COMPLETIONS_EXAMPLE: &str = "\
Examples:
  In this shell:
      source <(mptunnel completions bash)

  In fish, always:
      mptunnel completions fish > ~/.config/fish/conf.d/mptunnel.fish";

const MAN_EXAMPLE: &str = "\
Example:
  mptunnel man mpclient | man -l -";

/// The shells for which there are completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

/// One of the three programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Program {
    Mptunnel,
    Mpclient,
    Mpserver,
}

/// Prints completions; `mptunnel` is the definition of that program.
pub fn completions(args: &CompletionsArgs, mptunnel: &Command) -> ExitCode {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let programs = Program::value_variants().iter();
    let mut text = Vec::new();
    for program in programs.filter(|one| args.program.is_none_or(|wanted| wanted == **one)) {
        let mut command = with_values(program.command(mptunnel));
        let name = command.get_name().to_owned();
        generate(shell, &mut command, name, &mut text);
        if shell == Shell::Fish {
            fish_words(&command, &[], &mut text);
        }
    }
    end(write_out(&String::from_utf8_lossy(&text)))
}

/// Prints a page of the manual, or writes all of them.
pub fn man(args: &ManArgs, mptunnel: &Command) -> ExitCode {
    let mut pages = Vec::new();
    for program in Program::value_variants() {
        let mut command = program.command(mptunnel).disable_help_subcommand(true);
        command.build();
        collect_pages(&command, &mut pages);
    }
    if let Some(directory) = &args.output {
        let write = |command: &Command| {
            std::fs::write(directory.join(format!("{}.1", page_name(command))), page(command))
        };
        return end(pages.iter().try_for_each(write));
    }
    match pages.iter().find(|command| page_name(command) == args.page) {
        Some(command) => end(write_out(&page(command))),
        None => {
            let names: Vec<&str> = pages.iter().map(page_name).collect();
            eprintln!("mptunnel: no page {}: there are {}", args.page, names.join(", "));
            Exit::Usage.into()
        }
    }
}

fn end(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => Exit::Success.into(),
        Err(error) => fail("mptunnel", &error, Exit::Failure),
    }
}

impl Program {
    fn command(self, mptunnel: &Command) -> Command {
        match self {
            Program::Mptunnel => mptunnel.clone(),
            Program::Mpclient => client_command(),
            Program::Mpserver => server_command(),
        }
    }
}

/// What a shell can offer for the options of the table: their words, or names of files, and where one
/// is named, the options. Other words that stand alone are files only where a path is wanted. The
/// programs check values themselves, with better messages.
fn with_values(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let offer = |arg: Arg| {
        let kind = OptionSpec::find(arg.get_id().as_str()).map(|spec| spec.kind);
        match kind.filter(|_| arg.get_long().is_some()) {
            Some(Kind::Choice(words)) => arg.value_parser(PossibleValuesParser::new(words)),
            Some(Kind::Switch) => arg.value_parser(PossibleValuesParser::new(["on", "off"])),
            Some(Kind::File) => arg.value_hint(ValueHint::FilePath),
            None if arg.is_positional() && arg.get_id() == "key" => {
                arg.value_parser(PossibleValuesParser::new(keys(name == "set")))
            }
            None if arg.is_positional() && arg.get_value_hint() == ValueHint::Unknown => {
                arg.value_hint(ValueHint::Other)
            }
            _ => arg,
        }
    };
    command.mut_args(offer).mut_subcommands(with_values)
}

/// The options of a running program, or those of them that can be changed while it runs.
fn keys(only_live: bool) -> Vec<PossibleValue> {
    let of_programs = |spec: &&OptionSpec| {
        [Place::ClientProgram, Place::ServerProgram].iter().any(|place| spec.scope.covers(*place))
    };
    let specs = OPTIONS.iter().filter(of_programs).filter(|spec| spec.live || !only_live);
    specs.map(|spec| PossibleValue::new(spec.key).help(spec.help)).collect()
}

/// The words of a command that stand alone, for fish: clap_complete offers it options only, and files
/// in their place. `within` are the commands that lead to this one.
fn fish_words(command: &Command, within: &[&str], text: &mut Vec<u8>) {
    let root = within.first().copied().unwrap_or(command.get_name());
    let mut here = match within.get(1..).unwrap_or(&[]) {
        [] if within.is_empty() => String::new(),
        [] => format!("__fish_{root}_using_subcommand {}", command.get_name()),
        [parent, ..] => format!(
            "__fish_{root}_using_subcommand {parent}; and __fish_seen_subcommand_from {}",
            command.get_name()
        ),
    };
    let mut put = |condition: &str, offer: &str| {
        let condition =
            if condition.is_empty() { String::new() } else { format!(" -n \"{condition}\"") };
        text.extend_from_slice(format!("complete -c {root}{condition} -f{offer}\n").as_bytes());
    };
    let is_file = |arg: &Arg| {
        arg.get_possible_values().is_empty() && arg.get_value_hint() != ValueHint::Other
    };
    if command.get_positionals().next().is_some() && !command.get_positionals().any(is_file) {
        put(&here, "");
    }
    for arg in command.get_positionals() {
        let values = arg.get_possible_values();
        if values.is_empty() {
            break;
        }
        let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
        let and = if here.is_empty() { "" } else { "; and " };
        let seen = format!("__fish_seen_subcommand_from {}", names.join(" "));
        for value in &values {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace('\\', "\\\\").replace('\'', "\\'");
            let offer = format!(" -a {} -d '{help}'", value.get_name());
            put(&format!("{here}{and}not {seen}"), &offer);
        }
        here = format!("{here}{and}{seen}");
    }
    let within = [within, &[command.get_name()]].concat();
    for below in command.get_subcommands() {
        fish_words(below, &within, text);
    }
}

/// A command and those below it, each of which has a page.
fn collect_pages(command: &Command, pages: &mut Vec<Command>) {
    pages.push(command.clone());
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect_pages(below, pages);
    }
}

/// `mptunnel-path-add`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of one command, for roff.
fn page(command: &Command) -> String {
    // The page is the long help: with the options that the short one leaves out.
    let command = command.clone().mut_args(|arg| arg.hide_short_help(false));
    let text_of = |text: Option<&StyledStr>| text.map(ToString::to_string);
    let about = text_of(command.get_long_about().or_else(|| command.get_about()));
    let notes = text_of(command.get_after_long_help().or_else(|| command.get_after_help()));
    let version = format!("mptunnel {}", env!("CARGO_PKG_VERSION"));
    let man =
        Man::new(command.clone()).title(page_name(&command)).source(version).manual("mptunnel");
    let mut text = Vec::new();
    let mut render = || {
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        if let Some(about) = &about {
            section("DESCRIPTION", about).to_writer(&mut text)?;
        }
        man.render_options_section(&mut text)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        if let Some(notes) = &notes {
            let is_example = notes.starts_with("Example");
            section(if is_example { "EXAMPLES" } else { "NOTES" }, notes).to_writer(&mut text)?;
        }
        see_also(&command).to_writer(&mut text)
    };
    render().expect("a vector takes everything");
    String::from_utf8_lossy(&text).into_owned()
}

/// A section of this text: what is indented stays as it is, as examples and tables have to.
fn section(title: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    let mut verbatim = false;
    for line in text.lines().filter(|line| !matches!(*line, "Example:" | "Examples:")) {
        let is_indented = line.starts_with(' ');
        if line.is_empty() {
            if verbatim {
                roff.control("fi", []);
            }
            verbatim = false;
            roff.control("PP", []);
            continue;
        }
        if is_indented != verbatim {
            roff.control(if is_indented { "nf" } else { "fi" }, []);
            verbatim = is_indented;
        }
        roff.text([roman(line)]);
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}

fn see_also(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let others = ["mpclient", "mpserver", "mptunnel"];
    let mut line = Vec::new();
    for other in others.into_iter().filter(|other| *other != page_name(command)) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(other), roman("(1)")]);
    }
    roff.text(line);
    roff
}

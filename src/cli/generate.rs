//! Shell completions and the manual page, made from the command line's own definition.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn completions(args: CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ocellus", &mut text);
    write(&text)
}

/// `ocellus(1)`: every command in one page.
pub(super) fn man() -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    sections(&command, "ocellus", &mut text)?;
    write(&text)
}

/// A section for each command below `command`, and for theirs.
fn sections(command: &clap::Command, path: &str, text: &mut Vec<u8>) -> anyhow::Result<()> {
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        let name = format!("{path} {}", sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().display_name(name.clone()));
        text.extend_from_slice(format!(".SH {}\n", name.to_uppercase()).as_bytes());
        man.render_description_section(text)?;
        man.render_options_section(text)?;
        sections(sub, &name, text)?;
    }
    Ok(())
}

fn write(text: &[u8]) -> anyhow::Result<()> {
    std::io::Write::write_all(&mut std::io::stdout(), text)?;
    Ok(())
}

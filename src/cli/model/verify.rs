//! `ocellus model verify`: does this machine compute what the training machine computed?

use std::io::Write;

use crate::model::{LoadOptions, Model, SelfTest};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: super::ModelPath,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let path = args.model.resolve()?;
    let model = Model::load(&path, &LoadOptions::default())?;
    match model.self_test()? {
        SelfTest::NoGolden => anyhow::bail!(
            "{}: there is nothing to compare with; a bundle's model.toml has a [golden] section",
            path.display()
        ),
        passed => writeln!(std::io::stdout(), "{}: {passed}", path.display())?,
    }
    Ok(())
}

//! Parts of `docs/policies.md` that are drawn from the code. To draw them again: `VLBR_BLESS=1`.

use std::fmt::Write as _;

use vlbr_host::kvm::Place;
use vlbr_host::policy::Catalog;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policies.md");

fn policies(catalog: &Catalog) -> String {
    let mut text = String::new();
    for policy in catalog.all() {
        writeln!(text, "| `{}` | {} |", policy.name(), policy.title()).unwrap();
    }
    text
}

/// Knobs of a base of each kind, with the values they have in every base of that kind.
fn knobs(catalog: &Catalog) -> String {
    let kinds: [&[&str]; 3] = [
        &["v8", "v8-as-posted", "upstream@5.15", "upstream@6.16"],
        &["naive", "mediated-swap"],
        &["msr-list", "msr-list-virtualbox"],
    ];
    let mut text = String::new();
    for bases in kinds {
        writeln!(text, "\n| knob | {} |", bases.join(" | ")).unwrap();
        writeln!(text, "| --- |{}", " --- |".repeat(bases.len())).unwrap();
        let tables: Vec<_> = bases.iter().map(|base| catalog.knobs(base)).collect();
        for knob in tables[0].keys() {
            let values = tables.iter().map(|table| table[knob].to_string());
            let values: Vec<_> = values.collect();
            writeln!(text, "| `{knob}` | {} |", values.join(" | ")).unwrap();
        }
    }
    text + "\n"
}

fn place() -> String {
    let mut text = "stateDiagram-v2\n".to_owned();
    let name = |place: Place| place.name().replace(' ', "_");
    for (from, to, by) in Place::TRANSITIONS {
        let by = by.replace(':', ",");
        writeln!(text, "    {} --> {}: {by}", name(*from), name(*to)).unwrap();
    }
    text
}

/// The document with the part behind `<!-- name -->` replaced.
fn with(document: &str, name: &str, part: &str) -> String {
    let (before, rest) = document.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}<!-- {name} -->\n{part}<!-- end -->{after}")
}

#[test]
fn the_document_shows_policies_knobs_and_places_as_they_are() {
    let catalog = Catalog::builtin();
    let document = std::fs::read_to_string(PATH).unwrap();
    let mut drawn = with(&document, "policies", &policies(&catalog));
    drawn = with(&drawn, "knobs", &knobs(&catalog));
    drawn = with(&drawn, "place", &place());
    if std::env::var_os("VLBR_BLESS").is_some() {
        std::fs::write(PATH, &drawn).unwrap();
    }
    assert!(
        document == drawn,
        "docs/policies.md differs: VLBR_BLESS=1 draws it again"
    );
}

#[test]
fn knobs_change_what_they_name_and_nothing_else() {
    let catalog = Catalog::builtin();
    for base in ["v8", "upstream@6.8", "naive", "mediated-swap", "msr-list"] {
        let knobs = catalog.knobs(base);
        assert!(!knobs.is_empty(), "{base}");
        for (knob, value) in &knobs {
            let text = format!("name = \"x\"\nbase = \"{base}\"\n[change]\n{knob} = {value}\n");
            let policy = catalog.from_toml(&text).unwrap();
            assert_eq!(policy.name(), "x");
            let wrong = format!("name = \"x\"\nbase = \"{base}\"\n[change]\n{knob} = 7\n");
            let error = catalog.from_toml(&wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("[change] {knob}: ")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_policy_is_said_on_one_line() {
    let catalog = Catalog::builtin();
    for (text, says) in [
        ("name = \"x\"", "line 1, column 1: missing field `base`"),
        (
            "name = \"x\"\nbase = \"v9\"\n",
            "there is no policy \"v9\"; there are v8, ",
        ),
        (
            "name = \"x\"\nbase = \"ideal\"\n",
            "base = \"ideal\": this policy has no knobs",
        ),
        (
            "name = \"x\"\nbase = \"v8\"\n[change]\nrelaese = \"never\"\n",
            "[change] there is no knob \"relaese\"; there are ",
        ),
        (
            "name = \"x\"\nbase = \"upstream@5.4\"\n",
            "policy \"upstream@5.4\": guest LBR was merged in 5.12",
        ),
        (
            "name = \"../x\"\nbase = \"v8\"\n",
            "policy \"../x\": a name has up to 64 of the characters a-z, 0-9, @, . and -",
        ),
        ("name = \"\"\nbase = \"v8\"\n", "policy \"\": a name has "),
        (
            "name = \"a\\nb\"\nbase = \"v8\"\n",
            "policy \"a\\nb\": a name has ",
        ),
        (
            "name = \"x\"\nbase = \"upstream@six\"\n",
            "policy \"upstream@six\": \"six\" is no version of Linux",
        ),
    ] {
        let error = catalog.from_toml(text).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_policy_of_ones_own_takes_no_name_of_another() {
    let mut catalog = Catalog::builtin();
    let before = catalog.all().len();
    for name in [
        "v8",
        "mediated-lazy",
        "upstream@6.8",
        "upstream@6.8.0",
        "linux@6.8",
    ] {
        let mine = catalog.from_toml(&format!("name = \"{name}\"\nbase = \"v8\"\n"));
        let error = catalog.add(mine.unwrap()).unwrap_err().to_string();
        let says = format!("policy {name:?}: there is one of this name already");
        assert_eq!(error, says);
    }
    let mine = catalog
        .from_toml("name = \"mine@1.0\"\nbase = \"v8\"\n")
        .unwrap();
    catalog.add(mine.clone()).unwrap();
    assert!(catalog.add(mine).is_err());
    assert_eq!(catalog.all().len(), before + 1);
    assert_eq!(catalog.named("mine@1.0").unwrap().name(), "mine@1.0");
}

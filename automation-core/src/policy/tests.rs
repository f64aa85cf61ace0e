//! What a policy decides, and what is no policy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::{Asked, Policy, Subject};
use crate::error::{Error, ErrorKind};
use crate::request::{Classification, Ticket};
use crate::script::{Risk, Script, ScriptIndex, ScriptRegistry};

fn index() -> std::sync::Arc<ScriptIndex> {
    let script = |name: &str, category: &str, more: &str| {
        let source =
            format!("# /// script\n# [tool.automation]\n# category = {category:?}\n{more}# ///\n");
        Script::parse(name, source.as_bytes()).unwrap()
    };
    let scripts = [
        script("disk.py", "Device Slow", ""),
        script("late.py", "Device Slow", "# order = 200\n"),
        script("login.py", "Login", ""),
    ];
    ScriptRegistry::from_scripts(scripts).index()
}

fn routed(
    policy: &str,
    category: &str,
    confidence: Option<f64>,
) -> Result<(String, String), Error> {
    let policy = Policy::from_toml(policy).unwrap();
    let mut classification = Classification::new(category);
    classification.confidence = confidence;
    let routed = policy.route(&index(), &Ticket::new("T-1"), &classification, false)?;
    let others = routed.others.iter().map(|script| script.name());
    let order: Vec<_> = std::iter::once(routed.script.name())
        .chain(others)
        .collect();
    Ok((order.join(" "), routed.reason))
}

fn subject(script: &'static str) -> Subject<'static> {
    Subject {
        script,
        category: Some("Device Slow"),
    }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn without_rules_metadata_selects() {
    let (order, reason) = routed("", "device_slow", None).unwrap();
    assert_eq!(order, "disk.py late.py");
    assert_eq!(
        reason,
        "the first of 2 scripts of category \"Device Slow\" by their order"
    );
}

#[test]
fn a_rule_replaces_or_extends_what_metadata_says() {
    let rule = "[[routes]]\ncategory = \"DEVICE-SLOW\"\nscripts = [\"login.py\", \"gone.py\", \"late.py\"]\n";
    let (order, reason) = routed(rule, "Device Slow", None).unwrap();
    assert_eq!(order, "login.py late.py");
    assert!(reason.ends_with("by the policy"), "{reason}");
    let (order, _) = routed(&format!("{rule}extend = true"), "Device Slow", None).unwrap();
    assert_eq!(order, "login.py late.py disk.py");
}

#[test]
fn a_disabled_script_leaves_its_place_to_the_next() {
    let policy = "[scripts.\"disk.py\"]\nenabled = false\nreason = \"it is slow\"";
    let (order, reason) = routed(policy, "Device Slow", None).unwrap();
    assert_eq!(order, "late.py");
    assert!(reason.ends_with("; disabled: disk.py"), "{reason}");
    let policy = Policy::from_toml(policy).unwrap();
    let refusal = policy.refusal(subject("disk.py"), at("2026-01-01T00:00:00Z"), true);
    let detail = refusal.unwrap().detail;
    assert_eq!(
        detail,
        "script \"disk.py\" is disabled by the policy: it is slow"
    );
}

#[test]
fn what_nothing_serves_is_said_why() {
    let disabled = "[scripts.\"login.py\"]\nenabled = false";
    let absent = "[[routes]]\ncategory = \"VPN\"\nscripts = [\"vpn.py\"]";
    for (policy, category, expected) in [
        (
            "",
            "VPN",
            "no valid script declares it, and the policy has no rule for it",
        ),
        (disabled, "Login", "the policy has disabled login.py"),
        (
            absent,
            "vpn",
            "of those that the policy names, \"vpn.py\" is not there",
        ),
    ] {
        let error = routed(policy, category, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoScriptForCategory);
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn a_threshold_refuses_less_and_nothing_said() {
    let policy = "confidence_min = 0.7\n[[routes]]\ncategory = \"Login\"\nscripts = [\"login.py\"]\nconfidence_min = 0.9";
    let (_, reason) = routed(policy, "Device Slow", Some(0.7)).unwrap();
    assert!(
        reason.ends_with("; confidence 0.7 is at least 0.7"),
        "{reason}"
    );
    for (category, confidence) in [
        ("Device Slow", Some(0.69)),
        ("Device Slow", None),
        ("Login", Some(0.89)),
        ("Login", Some(f64::NAN)),
    ] {
        let error = routed(policy, category, confidence).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AutomationNotPossible, "{error}");
    }
    assert!(routed(policy, "Login", Some(0.9)).is_ok());
}

#[test]
fn maintenance_ends_and_leaves_dry_runs_alone() {
    let policy = "[[maintenance]]\nname = \"backup\"\nfrom = \"22:00\"\nuntil = \"02:00\"\ncategories = [\"device slow\"]";
    let policy = Policy::from_toml(policy).unwrap();
    let (night, day) = (at("2026-01-01T23:00:00Z"), at("2026-01-01T12:00:00Z"));
    let refusal = policy.refusal(subject("disk.py"), night, false).unwrap();
    assert_eq!(refusal.until, Some(at("2026-01-02T02:00:00Z")));
    assert!(refusal.detail.contains("\"backup\""), "{}", refusal.detail);
    assert_eq!(policy.refusal(subject("disk.py"), day, false), None);
    assert_eq!(policy.refusal(subject("disk.py"), night, true), None);
    let other = Subject {
        script: "disk.py",
        category: None,
    };
    assert_eq!(policy.refusal(other, night, false), None);
}

#[test]
fn the_first_rule_that_fits_gives_the_priority() {
    let policy = "[[priorities]]\nticket_priorities = [\"high\"]\npriority = 10\n[[priorities]]\nscripts = [\"disk.py\"]\npriority = -5";
    let policy = Policy::from_toml(policy).unwrap();
    assert_eq!(policy.priority(subject("disk.py"), Some("High")), 10);
    assert_eq!(policy.priority(subject("disk.py"), Some("low")), -5);
    assert_eq!(policy.priority(subject("late.py"), None), 0);
}

#[test]
fn risk_asks_for_an_approval_unless_a_rule_decides() {
    let policy = "[approval]\nexpires_seconds = 60\n[[approvals]]\nscripts = [\"disk.py\"]\nrequired = false\n\
                  [[approvals]]\nconfidence_below = 0.5\nself_approval = true";
    let policy = Policy::from_toml(policy).unwrap();
    let ask = |script, risk, confidence| {
        policy.approval(Asked {
            subject: subject(script),
            risk,
            confidence,
        })
    };
    assert_eq!(ask("disk.py", Risk::High, None), None);
    assert_eq!(ask("late.py", Risk::Low, Some(Some(0.5))), None);
    assert!(ask("late.py", Risk::Low, Some(None)).unwrap().self_approval);
    let of_risk = ask("late.py", Risk::High, None).unwrap();
    assert_eq!(
        (of_risk.expires, of_risk.self_approval),
        (Duration::from_secs(60), false)
    );
}

#[test]
fn what_can_not_work_is_refused_with_its_place() {
    for (policy, expected) in [
        ("confidence_min = 7", "confidence is 7, expected 0 to 1"),
        ("confidence_mim = 0.7", "unknown field `confidence_mim`"),
        (
            "[[quotas]]\nper = \"actor\"",
            "/quotas/0: expected concurrent",
        ),
        ("[[quotas]]\nruns = 5", "/quotas/0: expected concurrent"),
        (
            "[[quotas]]\nconcurrent = 0",
            "/quotas/0: expected concurrent",
        ),
        (
            "[[quotas]]\nper = \"user\"\nconcurrent = 1",
            "unknown variant `user`",
        ),
        (
            "[scripts.\"a.py\"]\nenable = false",
            "unknown field `enable`",
        ),
        (
            "[[routes]]\ncategory = \"a b\"\nscripts = []\n[[routes]]\ncategory = \"A-B\"\nscripts = []",
            "/routes/1",
        ),
    ] {
        let error = Policy::from_toml(policy).unwrap_err().to_string();
        assert!(error.contains(expected), "{policy}: {error}");
    }
}

#[test]
fn names_that_rules_use_are_known() {
    let policy = "[scripts.\"a.py\"]\n[[routes]]\ncategory = \"x\"\nscripts = [\"b.py\"]\n[[quotas]]\nconcurrent = 1\nscripts = [\"c.py\"]";
    let policy = Policy::from_toml(policy).unwrap();
    assert_eq!(
        policy.named_scripts().collect::<Vec<_>>(),
        ["a.py", "b.py", "c.py"]
    );
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(Policy::from_json(&json).unwrap(), policy);
}

proptest! {
    /// Threat: the category of a ticket is not trusted. Whatever it is, only scripts of the table are selected.
    #[test]
    fn any_category_selects_scripts_of_the_table_only(
        category in prop_oneof!["\\PC{0,40}", "[ _-]?(device|login|disk\\.py|\\.\\./x)[ _-]?(slow)?"],
    ) {
        let policy = "[[routes]]\ncategory = \"VPN\"\nscripts = [\"login.py\", \"../x\", \"gone.py\"]";
        match routed(policy, &category, None) {
            Ok((order, _)) => {
                prop_assert!(["disk.py late.py", "login.py"].contains(&order.as_str()), "{order}");
            }
            Err(error) => prop_assert!(matches!(
                error.kind(),
                ErrorKind::NoScriptForCategory | ErrorKind::InvalidRequest
            )),
        }
    }
}

"""Checks discovery messages against Home Assistant's own schemas.

Standard input: a JSON object, topic -> payload as text. Standard output: a list of what is wrong.

Home Assistant 2024.3.3 knows the component form: each payload goes through the DISCOVERY_SCHEMA of its component. These
ignore unknown keys; here they are refused, but for those of newer versions. The device form is described below from its documentation
(https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload); each component in it goes through the same
schemas, with what the message says for all of them.
"""

import importlib
import json
import sys

import voluptuous as vol

COMPONENTS = ["sensor", "binary_sensor", "event", "image", "switch", "number", "button"]
SCHEMAS = {c: importlib.import_module(f"homeassistant.components.mqtt.{c}").DISCOVERY_SCHEMA for c in COMPONENTS}
# Newer than 2024.3.3: 2025.10 made default_entity_id of object_id.
NEWER = {"default_entity_id"}

text = vol.All(str, vol.Length(min=1))
DEVICE_FORM = vol.Schema(
    {
        vol.Required("device"): vol.Schema(
            {
                vol.Required("identifiers"): vol.All([text], vol.Length(min=1)),
                vol.Required("name"): text,
                "connections": [[text]],
                "manufacturer": text,
                "model": text,
                "model_id": text,
                "sw_version": text,
                "hw_version": text,
                "serial_number": text,
                "suggested_area": text,
                "via_device": text,
                "configuration_url": text,
            }
        ),
        vol.Required("origin"): vol.Schema({vol.Required("name"): text, "sw_version": text, "support_url": text}),
        vol.Required("components"): vol.All(
            {text: vol.Schema({vol.Required("platform"): vol.In(COMPONENTS)}, extra=vol.ALLOW_EXTRA)},
            vol.Length(min=1),
        ),
        # Shared options; anything else belongs into a component.
        "availability": list,
        "availability_mode": text,
        "state_topic": text,
        "command_topic": text,
        "qos": vol.In([0, 1, 2]),
        "encoding": text,
    }
)


def known_keys(schema):
    keys = set()
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, vol.Schema):
            todo.append(part.schema)
        elif isinstance(part, vol.All | vol.Any):
            todo.extend(part.validators)
        elif isinstance(part, dict):
            keys |= {str(k) for k in part}
    return keys


def check_component(where, component, payload, wrong):
    if component not in SCHEMAS:
        wrong.append(f"{where}: no component {component}")
        return
    unknown = set(payload) - known_keys(SCHEMAS[component]) - NEWER
    if unknown:
        wrong.append(f"{where}: unknown {sorted(unknown)}")
    try:
        checked = SCHEMAS[component]({k: v for k, v in payload.items() if k not in NEWER})
        if not checked.get("unique_id"):
            wrong.append(f"{where}: no unique_id")
    except vol.Invalid as e:
        wrong.append(f"{where}: {e}")


def check(topic, payload, wrong, ids):
    _, component, *rest = topic.split("/")
    if component != "device":
        check_component(topic, component, payload, wrong)
        ids.append(payload.get("unique_id"))
        return
    try:
        DEVICE_FORM(payload)
    except vol.Invalid as e:
        wrong.append(f"{topic}: {e}")
        return
    shared = {k: v for k, v in payload.items() if k != "components"}
    for key, config in payload["components"].items():
        platform = config.pop("platform")
        # Nothing but its platform: it is to be removed.
        if config:
            check_component(f"{topic} {key}", platform, {**shared, **config}, wrong)
            ids.append(config.get("unique_id"))


def main():
    wrong, ids = [], []
    for topic, payload in json.load(sys.stdin).items():
        check(topic, json.loads(payload), wrong, ids)
    if len(ids) != len(set(ids)):
        wrong.append("a unique_id twice")
    json.dump({"wrong": wrong, "components": len(ids)}, sys.stdout)


main()

"""Home Assistant's core with its own MQTT integration, headless, for the tests.

usage: home_assistant.py CONFIG_DIRECTORY BROKER_PORT

One JSON object a line on standard input, one answer each on standard output:
{"do": "states"}                                 every entity of MQTT: state, attributes, unique id, device
{"do": "call", "service": "switch.turn_off", "entity": "switch.x", "data": {}}
{"do": "automate", "yaml": "alias: …"}           an automation, as one writes it
{"do": "notified"}                               what was said by notify.notify, which is ours
{"do": "stop"}                                   a clean stop; the directory serves the next start
"""

import asyncio
import json
import logging
import pathlib
import sys

from homeassistant import auth, bootstrap, config_entries, core, loader, setup
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.util.yaml import parse_yaml

PLATFORMS = ["sensor", "binary_sensor", "event", "image", "switch", "number", "button"]


async def start(directory, port):
    """As `hass` starts, without the web pages and what else is set up by default."""
    pathlib.Path(directory, "configuration.yaml").touch()
    hass = core.HomeAssistant(directory)
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [], [])
    for component in ["homeassistant", *PLATFORMS]:
        await setup.async_setup_component(hass, component, {})
    if not hass.config_entries.async_entries("mqtt"):
        entry = config_entries.ConfigEntry(
            version=1,
            minor_version=1,
            domain="mqtt",
            title="mqtt",
            data={"broker": "127.0.0.1", "port": port, "discovery": True},
            source=config_entries.SOURCE_USER,
        )
        await hass.config_entries.async_add(entry)
    else:
        await setup.async_setup_component(hass, "mqtt", {})
    await hass.async_start()
    return hass


def states(hass):
    entities = entity_registry.async_get(hass)
    devices = device_registry.async_get(hass)
    found = {}
    for entry in entities.entities.values():
        if entry.platform != "mqtt":
            continue
        state = hass.states.get(entry.entity_id)
        device = devices.async_get(entry.device_id) if entry.device_id else None
        found[entry.entity_id] = {
            "unique_id": entry.unique_id,
            "category": entry.entity_category,
            "device": sorted(i[1] for i in device.identifiers) if device else None,
            "device_name": device.name if device else None,
            "state": state.state if state else None,
            "attributes": dict(state.attributes) if state else None,
        }
    names = sorted(d.name for d in devices.devices.values() if any(i[0] == "mqtt" for i in d.identifiers))
    return {"entities": found, "devices": names}


async def automate(hass, yaml, notified):
    hass.services.async_register("notify", "notify", lambda call: notified.append(call.data["message"]))
    config = {"automation": [parse_yaml(yaml)]}
    if not await setup.async_setup_component(hass, "automation", config):
        raise ValueError("no automation")
    await hass.async_block_till_done()
    found = {state.entity_id: state.state for state in hass.states.async_all("automation")}
    if list(found.values()) != ["on"]:
        raise ValueError(f"not what Home Assistant takes: {found}")


async def main(directory, port):
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    hass = await start(directory, port)
    notified = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        answer = {}
        try:
            if order["do"] == "states":
                answer = states(hass)
            elif order["do"] == "call":
                domain, service = order["service"].split(".")
                data = {"entity_id": order["entity"], **order.get("data", {})}
                await hass.services.async_call(domain, service, data, blocking=True)
            elif order["do"] == "automate":
                await automate(hass, order["yaml"], notified)
            elif order["do"] == "notified":
                answer = {"said": notified}
            elif order["do"] == "stop":
                break
        except Exception as error:  # The test is told.
            answer = {"error": repr(error)}
        print(json.dumps(answer, default=str), flush=True)
    await hass.async_stop()
    print(json.dumps({"stopped": True}), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))

#!/usr/bin/env python3
"""How alike is each picture to the camera's first one? usage: subscriber.py [HOST [PORT]]; needs paho-mqtt and numpy."""
import base64, json, sys
import numpy, paho.mqtt.client as mqtt

first = {}

def on_message(client, userdata, message):
    seen = json.loads(message.payload)
    embedding = seen["embedding"]
    dtype = {"f16": "<f2", "f32": "<f4"}[embedding["dtype"]]
    vector = numpy.frombuffer(base64.b64decode(embedding["b64"]), dtype).astype(numpy.float64)
    vector /= numpy.linalg.norm(vector) or 1.0
    alike = vector @ first.setdefault(seen["camera"], vector)
    print(f'{seen["camera"]} {seen["seq"]} {embedding["dim"]} {alike:.3f}', flush=True)

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, *_: client.subscribe("ocellus/+/+/embedding")
client.on_message = on_message
client.connect(*(sys.argv[1:2] or ["localhost"]), int((sys.argv[2:3] or [1883])[0]))
client.loop_forever()

"""Opens the page of `mpnet report` in headless Chromium, takes pictures to look at, and checks its script.

    python tests/python/check_report.py REPORT.html FOLDER [CHROMIUM]

Needs websocket-client. FOLDER gets a picture of the page in light and dark, at the width of a desk and of
a phone, one with the pointer on a curve, the page as printed (PDF) and the PNGs that its buttons make.
Fails where the script complains, a page is wider than its window, or a button makes no picture.
"""

import base64
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

PORT = 9337
page, folder = (pathlib.Path(a).absolute() for a in sys.argv[1:3])
chromium = sys.argv[3] if len(sys.argv) > 3 else "chromium"
folder.mkdir(parents=True, exist_ok=True)
profile = tempfile.mkdtemp()
flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
flags += " --disable-background-networking --disable-component-update --remote-allow-origins=*"
browser = subprocess.Popen(
    [chromium, *flags.split(), f"--remote-debugging-port={PORT}", f"--user-data-dir={profile}", "about:blank"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
messages, numbers = [], itertools.count(1)


def connect():
    for _ in range(100):
        try:
            tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json"))
            tab = next(t for t in tabs if t["type"] == "page")
            return websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
        except (OSError, StopIteration):
            time.sleep(0.2)
    raise SystemExit("Chromium does not answer")


def call(method, **parameters):
    number = next(numbers)
    socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
    while True:
        message = json.loads(socket.recv())
        if message.get("id") == number:
            assert "error" not in message, (method, message["error"])
            return message["result"]
        messages.append(message)


def value(expression):
    found = call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")


def picture(name, whole=True):
    data = call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
    (folder / name).write_bytes(base64.b64decode(data))


try:
    socket = connect()
    for domain in ("Page", "Runtime", "Log"):
        call(f"{domain}.enable")
    call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    for (size, width, height), scheme in itertools.product(
        [("desk", 1280, 900), ("phone", 390, 844)], ["light", "dark"]
    ):
        call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == "phone",
        )
        call("Page.navigate", url=page.as_uri())
        time.sleep(1)
        wide = value("document.documentElement.scrollWidth")
        assert wide <= width, f"{size}: the page is {wide} pixels wide"
        picture(f"{size}-{scheme}.png")
        charts = value("document.querySelectorAll('figure').length")
        for chart in range(charts):
            figure = f"document.querySelectorAll('figure')[{chart}]"
            value(f"{figure}.scrollIntoView({{block: 'center'}})")
            box = value(f"{figure}.querySelector('svg').getBoundingClientRect().toJSON()")
            x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"]
            call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            said = value(f"{figure}.querySelector('output').textContent")
            assert said.startswith("update "), (size, scheme, chart, said)
            if chart == 0:
                picture(f"{size}-{scheme}-hover.png", whole=False)
                print(f"{size}, {scheme}: {charts} charts; the pointer says '{said}'")
    before = set(folder.glob("*.png"))
    buttons = value("document.querySelectorAll('button').length")
    for button in range(buttons):
        value(f"document.querySelectorAll('button')[{button}].click()")
        time.sleep(1)
    made = set(folder.glob("*.png")) - before
    assert 0 < buttons == len(made), (buttons, made)
    print(f"{buttons} buttons made {sorted(p.name for p in made)}")
    call("Emulation.clearDeviceMetricsOverride")
    pdf = call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"]
    (folder / "print.pdf").write_bytes(base64.b64decode(pdf))
    bad = [
        m
        for m in messages
        if m["method"] == "Runtime.exceptionThrown"
        or (m["method"] == "Runtime.consoleAPICalled" and m["params"]["type"] in ("error", "warning"))
        or (m["method"] == "Log.entryAdded" and m["params"]["entry"]["level"] in ("error", "warning"))
    ]
    assert not bad, bad
    print("no error and no warning on the console")
finally:
    browser.terminate()

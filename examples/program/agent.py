"""An agent with a loop of its own. It knows one thing of the trainer: the address in OPENAI_BASE_URL.

It asks a model which desk a customer's mail belongs to, looks up who works there, and asks which clerk.
"""

import json
import os
import sys
import urllib.request

CLERKS = {
    "warranty": {"tools": "ada", "lamps": "bo"},
    "returns": {"tools": "cy", "lamps": "di"},
    "sales": {"tools": "ed", "lamps": "flo"},
}


def desk_question(mail: str) -> str:
    """The first question."""
    return f"{mail}\nWhich desk: {', '.join(CLERKS)}?"


def clerk_question(desk: str) -> str:
    """The second question."""
    return f"Which clerk: {', '.join(f'{name} for {what}' for what, name in CLERKS[desk].items())}?"


def complete(chat: list[dict[str, str]]) -> dict[str, str]:
    """The assistant's message."""
    body = json.dumps({"model": "any", "messages": chat, "max_tokens": 8}).encode()
    key = os.environ["OPENAI_API_KEY"]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)
    with urllib.request.urlopen(request) as response:
        message: dict[str, str] = json.load(response)["choices"][0]["message"]
    return message


def main() -> None:
    """Sort the mail on stdin; prints the desk and the clerk."""
    mail = json.load(sys.stdin)["prompt"]
    chat = [{"role": "user", "content": desk_question(mail)}]
    for _ in range(2):
        chat.append(complete(chat))
        desk = chat[-1]["content"].strip()
        if desk in CLERKS:
            break
        chat.append({"role": "user", "content": f"There is no such desk. Which desk: {', '.join(CLERKS)}?"})
    else:
        print("nobody")
        return
    chat.append({"role": "user", "content": clerk_question(desk)})
    print(desk, complete(chat)["content"].strip())


if __name__ == "__main__":
    main()

"""Chat templates of well-known models, in their idioms, and templates made to do harm."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import jinja2.ext
import jinja2.sandbox
import pytest

from hotplug.errors import ModelError, UsageError
from hotplug.formats.gguf import GGUFFile
from hotplug_llm.chat import ChatTemplate
from hotplug_llm.tokenizers import from_gguf

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}
{% set system_message = false %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}
{% endif %}{% endfor %}"""

LLAMA_3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{#- The system message comes first. -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none and tools is defined %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
            + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN = """\
{%- macro render_content(content) %}
    {%- if content is string %}{{- content }}
    {%- else %}{%- for item in content %}{%- if item.type == 'text' %}{{- item.text }}
    {%- endif %}{%- endfor %}{%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string
        and not(message.content.startswith('<tool_response>')
        and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = render_content(message.content) %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n')
                .split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and reasoning_content %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') }}
        {%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
            {%- if tool_call.arguments is string %}{{- tool_call.arguments }}
            {%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined
        and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST]" + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- generation %}{{- message["content"] + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}"""

IDIOMS = """\
{%- for k, v in {"b": 1, "a": [1, 2.5, none, true]}.items() %}{{ k }}={{ v }};{% endfor %}
{%- for k, v in {"b": 1, "a": 2} | dictsort %}{{ k }}{{ v }}{% endfor %}
{{ ["x", "y"] | join(", ") }} {{ "Hello %s, %d" % ("you", 3) }} {{ "ab" * 3 }} {{ "<" ~ 1 ~ ">" }}
{{ messages | map(attribute="role") | unique | list | length }} {{ "a,b" | replace(",", ";") }}
{%- for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}
{%- if i == 5 %}{% break %}{% endif %}{{ loop.cycle("odd", "even") }}{{ i }}{% endfor %}
{{ "A line\nand another" | indent(2) }} {{ "word" | upper | lower | title | capitalize }}
{{ {"z": [1, {"a": "é<&>'"}], "b": none} | tojson }} {{ [3, 1, 2] | sort | first }}
{{ messages[0].content[:3] }}{{ messages[-1]["role"] }}{{ [1, 2] + [3] }}{{ 7 // 2 }}{{ 2 ** 8 }}
{{ "x" if messages is sequence and messages is not string else "y" }}{{ undefined_thing }}
{{ messages[0].get("name", "nobody") }} {{ "  t ".strip() | length }}
{%- set x %}block of {{ "text" }}{% endset %}{{ x }}{{ x is string }}
{%- macro twice(text, sep="-") %}{{ text }}{{ sep }}{{ text }}{% endmacro %}{{ twice("m") }}
{%- macro boxed() %}[{{ caller("n") }}]{% endmacro %}
{%- call(n) boxed() %}{{ n }}{% endcall %}{% filter upper %}filtered{% endfilter %}
{%- for a in [[1, [2]], [3, []]] recursive %}{{ a[0] }}{% if a[1] %}+{% endif %}{% endfor %}
{{ messages | selectattr("role", "in", ["user"]) | list | count }} {{ (1, 2) == (1, 2) }}
{{ namespace(a=1).a }} {{ dict(a=1) }} {{ "abc" | list | reverse | join }} {{ -3 | abs }}
{{ "3" | int + 1 }} {{ "1.5" | float }} {{ none | default("d") }} {{ [1, 2] | last }} {{ 1 in [1] }}
{{ ["a"] | reject("equalto", "b") | list }} {{ "a" is in ["a"] }} {{ 1.0 | string }}{{ "x" | safe }}
"""

CONVERSATION = [
    {"role": "user", "content": " Hello, <b>world</b> & 'all' "},
    {"role": "assistant", "content": "Hi \u00e9\u4f60\u597d \U0001f600"},
    {"role": "user", "content": "Bye"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "<d>", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": [1, "\u00e9"]}}}
WITH_TOOLS = [
    {"role": "user", "content": [{"type": "text", "text": "Call f."}]},
    {"role": "user", "content": "Now."},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nI do.", "tool_calls": [CALL]},
    {"role": "tool", "content": "42"},
    {"role": "tool", "content": "43"},
]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def reference(source, messages, **extra):
    """As transformers renders: plain Jinja with its settings."""
    import json

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda x, ensure_ascii=False, indent=None: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent
    )
    return environment.from_string(source).render(
        messages=messages,
        bos_token="<s>",
        eos_token="</s>",
        strftime_now=NOW.strftime,
        **{"add_generation_prompt": True, **extra},
    )


def template(source):
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", clock=lambda: NOW)


@pytest.mark.parametrize(
    ("source", "messages", "extra"),
    [
        (CHATML, CONVERSATION, {}),
        (CHATML, [SYSTEM, *CONVERSATION], {"add_generation_prompt": False}),
        (LLAMA_2, [SYSTEM, *CONVERSATION], {}),
        (LLAMA_3, CONVERSATION, {}),
        (LLAMA_3, [SYSTEM, *CONVERSATION], {"tools": TOOLS}),
        (LLAMA_3, WITH_TOOLS[1:], {"tools": None}),
        (QWEN, CONVERSATION, {"enable_thinking": False}),
        (QWEN, [SYSTEM, *WITH_TOOLS], {"tools": TOOLS}),
        (GEMMA, CONVERSATION, {}),
        (MISTRAL, [SYSTEM, *CONVERSATION], {}),
        (IDIOMS, CONVERSATION, {}),
    ],
)
def test_templates_render_as_in_plain_jinja(source, messages, extra):
    expected = reference(source, messages, **extra)
    assert template(source).render(messages, **extra) == expected
    assert expected


def test_the_demo_model(demo_model):
    with GGUFFile.open(demo_model) as file:
        chat = ChatTemplate.from_gguf(file.metadata, from_gguf(file.metadata))
    assert chat.render([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_conversation_that_the_template_refuses():
    with pytest.raises(ModelError, match="refuses the conversation: System role not supported"):
        template(GEMMA).render([SYSTEM, *CONVERSATION])
    with pytest.raises(ModelError, match="roles must alternate"):
        template(MISTRAL).render([CONVERSATION[0], CONVERSATION[0]])


def test_named_templates_and_missing_ones(demo_model):
    with GGUFFile.open(demo_model) as file:
        tokenizer = from_gguf(file.metadata)
    metadata = {
        "tokenizer.chat_template": "usual",
        "tokenizer.chat_template.tool_use": "{{ bos_token }}tools{{ eos_token }}",
    }
    assert ChatTemplate.from_gguf(metadata, tokenizer).render([]) == "usual"
    named = ChatTemplate.from_gguf(metadata, tokenizer, name="tool_use")
    assert named.render([]) == "<|im_start|>tools<|im_end|>"
    with pytest.raises(ModelError, match=r"no chat template named 'rag' \(tokenizer.chat_template"):
        ChatTemplate.from_gguf(metadata, tokenizer, name="rag")
    with pytest.raises(ModelError, match="no chat template"):
        ChatTemplate.from_gguf({}, tokenizer)
    with pytest.raises(ModelError, match="a string is needed"):
        ChatTemplate.from_gguf({"tokenizer.chat_template": 3}, tokenizer)


@pytest.mark.parametrize("messages", [[{"content": "x"}], ["x"], [{"role": 3}]])
def test_messages_need_a_role(messages):
    with pytest.raises(UsageError, match="message 0 has no role"):
        template(CHATML).render(messages)


def test_messages_hold_plain_values_only():
    with pytest.raises(UsageError, match="take no object"):
        template(CHATML).render([{"role": "user", "content": object()}])


def test_templates_cannot_change_what_they_are_given():
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(ModelError):
        template("{{ messages.append(1) }}").render(messages)
    with pytest.raises(ModelError):
        template("{{ messages[0].update(role='system') }}").render(messages)
    assert messages == [{"role": "user", "content": "x"}]


LONG = "{%- if message.role == 'x' and 'y' in message.content %}z{% endif %}" * 300


def test_long_conversations_render():
    messages = [{"role": ("user", "assistant")[i % 2], "content": "x" * 2000} for i in range(2000)]
    assert len(template(QWEN).render(messages)) > 4_000_000
    short = [{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(400)]
    padded = QWEN.replace("{%- for message in messages %}", "{%- for message in messages %}" + LONG)
    assert template(padded).render(short).count("<|im_start|>") == 401


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ 1 +", "{% endif %}", "{{ x | nothing }}", "{%"]
)
def test_invalid_templates(source):
    with pytest.raises(ModelError, match="not valid"):
        template(source)


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ messages[0].x.y }}", "{{ 'a' + 1 }}"])
def test_templates_that_fail(source):
    with pytest.raises(ModelError, match="chat template failed"):
        template(source).render(CONVERSATION)


def test_a_template_that_is_too_long():
    with pytest.raises(ModelError, match="characters"):
        ChatTemplate("x" * 300_000)


# What has been used to get at Python from a template. Each must fail, or print nothing of Python.
INTRUSIONS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ messages[0]['role'].__class__ }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ strftime_now.__func__.__globals__ }}",
    "{{ strftime_now.__self__._clock }}",
    "{{ (messages | attr('__class__')).__mro__ }}",
    "{{ '' | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ [''] | map(attribute='__class__') | list | first }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ [''] | selectattr('__class__') | list | first | attr('__class__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('%s' | safe).format(1) }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{% for x in messages %}{{ loop.__class__ }}{{ loop._iterator.gi_frame }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._environment.globals }}",
    "{% macro m() %}{{ caller.__class__.__mro__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ range.__self__ }}{{ dict.__subclasses__() }}",
    "{{ dict.fromkeys.__self__.__mro__[1] }}",
    "{{ config }}{{ request.application.__globals__ }}{{ get_flashed_messages.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}{{ x }}",
    "{% extends '/etc/passwd' %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__init__.__globals__ }}",
    "{{ environment.call }}{{ context.environment.globals }}",
    "{{ undefined_thing.__init__.__globals__ }}",
    "{{ messages[0].items().__reduce_ex__(2) }}",
    "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "{{ ''.encode().__class__ }}{{ 1 .__class__ }}{{ (1).real.__class__ }}",
    "{{ strftime_now('%' ~ 'Y').__class__ }}",
]


@pytest.mark.parametrize("source", INTRUSIONS)
def test_templates_do_not_reach_python(source):
    try:
        shown = template(source).render(CONVERSATION)
    except ModelError:
        return
    for trace in ("<class", "<module", "<function", "<bound", "<built-in", "object at", "root:"):
        assert trace not in shown


def grown(first, step, use=""):
    """A template that makes x out of x, sixty times over."""
    return (
        f"{{% set ns = namespace(x={first}) %}}{{% for i in range(60) %}}"
        f"{{% set ns.x = {step} %}}{{% endfor %}}{use}"
    )


def often(body):
    """A template that does something long many times."""
    return (
        "{% set text = 'ab' * 1000000 %}{% set list = range(99999) | list %}"
        f"{{% for i in range(99999) %}}{body}{{% endfor %}}"
    )


# Each would fill the memory or never end.
BOMBS = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ (0,) * 10**9 }}",
    "{{ 9**(9**(9**9)) }}",
    "{{ 1 << 10**10 }}",
    "{{ (10**1000).to_bytes(10**10, 'big') }}",
    "{{ ('9' * 4000000) | int }}",
    grown("3", "ns.x * ns.x * ns.x"),
    grown("'ab'", "ns.x + ns.x"),
    grown("'ab'", "ns.x ~ ns.x"),
    grown("'ab'", "[ns.x, ns.x] | join"),
    grown("'ab'", "ns.x.join([ns.x, ns.x])"),
    grown("'ab'", "ns.x.replace('a', ns.x)"),
    grown("'ab'", "'%s%s' % (ns.x, ns.x)"),
    grown("[1]", "ns.x + ns.x"),
    grown("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ ns.x | string | length }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ ns.x | tojson }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ ns.x ~ '' }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ ns.x == ns.x[:] }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ [ns.x] | join }}"),
    grown("[1]", "[ns.x, ns.x]", "{{ [ns.x[:]].index(ns.x[:]) }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ messages[0][ns.x] }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ messages[0].get(ns.x) }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ ns.x in {1: 2} }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ [ns.x] | unique | list }}"),
    grown("(1,)", "(ns.x, ns.x)", "{{ '%s' % (ns.x,) }}"),
    grown("{}", "{'a': ns.x, 'b': ns.x}", "{{ ns.x }}"),
    grown("1", "dict(a=ns.x, b=ns.x)", "{{ ns.x.values() | list | string }}"),
    "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ ns.x }}",
    "{% set a = namespace() %}{% set b = namespace(x=[a, a]) %}{% set a.x = [b, b] %}{{ a }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '%.9999999999f' % 1.0 }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ '{x:9999999999}'.format_map({'x': 1}) }}",
    "{{ 'a'.center(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ 'a\tb'.expandtabs(10**10) }}",
    "{{ ('a\n' * 100000) | indent('b' * 100000) }}",
    "{{ [1, 2] | batch(10**10, 0) | list }}",
    "{{ [1] | slice(10**10) | list }}",
    "{{ 1.5 | round(10**10) }}",
    "{{ lipsum(10**9) }}",
    "{{ range(10**12) | list }}",
    "{{ strftime_now('%Y' * 10**9) }}",
    "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "{{ ('a' * 10**6).replace('', 'b' * 10**6) }}",
    "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "{{ (['a'] * 100000) | map('replace', 'a', 'b' * 100000) | list | length }}",
    "{{ ('a' * 10**6).join(range(99999) | map('string') | list) }}",
    "{{ ('a' * 10**6).join('b' * 10**6) }}",
    "{{ range(99999) | map('string') | join('a' * 10**6) }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}" + "x" * 60000 + "{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n - 1) }}{{ m(n - 1) }}{% endmacro %}{{ m(50) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{% for x in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    often("{{ range(99999) | select('gt', 99999999) | first }}"),
    often("{{ range(99999) | sort(reverse=true) | first }}"),
    often("{{ list | first in list[1:] }}"),
    often("{{ -1 in list }}"),
    often("{{ list.count(0) }}"),
    often("{{ list == list[:] }}"),
    often("{% set y = list + list %}"),
    often("{% for x in list | reverse %}{% break %}{% endfor %}"),
    often("{{ text.find('b' * 999999) }}"),
    often("{% set y = text[1:] %}"),
    often("{% set y = text | upper %}"),
    often("{{ text is upper }}"),
    often("{{ text.isalpha() }}"),
    often("{{ text.strip('ab') }}"),
    often("{% set y %}{{ text }}{% endset %}"),
    often("{% set y = text | map('upper') | list %}"),
    often("{% set y = messages | string %}"),
    "{{ ('ab' * 200000).strip('c' * 200000 ~ 'ab') }}",
    "{{ ('ab' * 200000) | trim('c' * 200000 ~ 'ab') }}",
    "{{ ('a' * 400000).rfind('b' ~ 'a' * 200000) }}",
    "{{ (('a' * 500000) ~ ('b' * 500000) ~ ('a' * 500000)).count('a' * 250000 ~ 'ba') }}",
]


def finishes(work, seconds):
    """Whether `work` returns in time; it may fail by ModelError, and not by anything else."""
    outcome = []

    def run():
        try:
            work()
        except ModelError:
            outcome.append("refused")
        except BaseException as error:  # noqa: BLE001  # the assertion shows it
            outcome.append(error)
        else:
            outcome.append("rendered")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome


@pytest.mark.parametrize("source", BOMBS)
def test_bombs_are_stopped(source):
    assert finishes(lambda: template(source).render(CONVERSATION), 20) == ["refused"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "[" * 3000 + "]" * 3000 + " }}",
        "{{ " + "-" * 20000 + "1 }}",
        "{{ " + "not " * 15000 + "1 }}",
        "{{ 1" + "+1" * 30000 + " }}",
        "{{ 1" + "~1" * 30000 + " }}",
        "{{ x" + ".a" * 30000 + " }}",
        "{{ x" + "|list" * 10000 + " }}",
        "{% if 1 %}" * 2500 + "{% endif %}" * 2500,
        "{% for x in y %}" * 200 + "{% endfor %}" * 200,
        "{% if 0 %}" + "{% elif 0 %}" * 5000 + "{% endif %}",
        "{{ 9" + "**9" * 1000 + " }}",
        "{{ '" + "x" * 50000 + "' * 10**8 }}",
        "{{ 9" + "9" * 50000 + " }}",
        "{% macro m() %}" * 100 + "{% endmacro %}" * 100,
        "{" * 50000,
        "{#" * 30000,
        "{% raw %}" * 6000,
    ],
)
def test_templates_nested_or_repeated_without_end(source):
    outcome = finishes(lambda: template(source).render(CONVERSATION), 20)
    assert outcome in (["refused"], ["rendered"])

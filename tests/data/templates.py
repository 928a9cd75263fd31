"""Chat templates that do what those of published models do."""

# As most models since 2023.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Mistral's: the system prompt is written into the user turn that asks for an answer, and into
# none once it was given.
SYSTEM_AT_THE_END = (
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}{{ bos_token }}"
    "{% for m in rest %}{% if m.role == 'user' %}[INST] {% if loop.last and rest is not sameas "
    "messages %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]{% else %}"
    " {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# As Llama 2's: contents are stripped.
STRIPPING = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content.strip() }} "
    "[/INST]{% elif m.role == 'assistant' %} {{ m.content.strip() }} {{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# As Vicuna's without its end token.
ENDLESS = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}\n{% else %}ASSISTANT: "
    "{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# As Qwen 3's: thoughts are written in the last turn only, and tools in a system turn.
THINKING = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n"
    "</think>\n\n{% endif %}{{ m.content or '' }}{% for call in m.tool_calls or [] %}<call>"
    "{{ call.function.name }} {% if call.function.arguments is string %}"
    "{{ call.function.arguments }}{% else %}{{ call.function.arguments | tojson }}{% endif %}"
    "</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama 3.1's and Qwen 2.5's: arguments must be an object, or they are quoted twice.
CALLING = THINKING.replace(
    "{% if call.function.arguments is string %}{{ call.function.arguments }}{% else %}"
    "{{ call.function.arguments | tojson }}{% endif %}",
    "{{ call.function.arguments | tojson }}",
)
# With the marks by which transformers finds assistant text.
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}"
    "<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED_WITHOUT_END = MARKED.replace(
    "<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>"
)
# As Phi 3's: the last turn has an end of the text that begins as the next turn would.
TWO_ENDS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)

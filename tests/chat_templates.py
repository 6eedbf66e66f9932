"""Chat templates in the formats that each family of models publishes, written for the tests.

None of them marks what is generated. Gemma's refuses a system turn; Mistral's (of its version 0.3) puts it into the
last turn if that is a question, so the prompt changes when an answer follows; Mistral's has no generation prompt,
and needs none. Gemma's ChatML is that of the paper's tokenizer, and ends a conversation with <eos>.
"""

GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for turn in messages %}"
    "<start_of_turn>{{ 'model' if turn.role == 'assistant' else turn.role }}\n"
    "{{ turn.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}"
    "{% set before = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set before = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "<start_of_turn>{{ 'model' if turn.role == 'assistant' else turn.role }}\n"
    "{{ before if loop.first else '' }}{{ turn.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA_CHATML = (
    "{{ bos_token }}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% elif messages[-1].role == 'assistant' %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}"
    "{% set before = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set before = '' %}{% set turns = messages %}{% endif %}"
    "{{ bos_token }}"
    "{% for turn in turns %}"
    "{% if turn.role == 'user' %}[INST] {{ before if loop.last else '' }}{{ turn.content }}[/INST]"
    "{% else %} {{ turn.content | trim }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}"
    "{% for turn in messages %}"
    "<|start_header_id|>{{ turn.role }}<|end_header_id|>\n\n{{ turn.content | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

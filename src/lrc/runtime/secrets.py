"""The pattern of access tokens, keys and passwords, for which recipes and published files are searched."""

from __future__ import annotations

import re

SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_\w{16,}|api_org_\w{16,}"  # Hugging Face
    r"|gh[oprsu]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|sk-\w{16,}|sk-(?=[\w-]*\d)[\w-]{16,}"  # OpenAI, Anthropic, DeepSeek, OpenRouter
    r"|wandb_v\d_\w{16,}|local-[0-9a-f]{40}"  # Weights & Biases
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    r"|AIza[\w-]{35}|ya29\.[\w-]{16,}"  # Google
    r"|xox[abeprs]-[\w-]{10,}"  # Slack
    r"|(?:npm_|gsk_|r8_|dop_v1_)[A-Za-z0-9]{24,}|(?:nvapi-|pypi-|tgp_v1_)[\w-]{24,}"  # npm, Groq, NVIDIA, PyPI …
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"  # JSON Web Tokens
    r")"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^\s/:@\"']+:[^\s/@\"']+@"  # a password in an address
    # Older keys of Weights & Biases and AWS look like a checksum; they are recognized by what precedes them.
    r"|(?i:(?:wandb|api|access)\w*key[\"']?\s*[:=]\s*[\"']?[\w/+]{40}(?![\w/+]))",
    re.ASCII,
)

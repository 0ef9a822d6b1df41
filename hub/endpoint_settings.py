"""What a member's Endpoint may say about how the hub is to deal with it: one row each, in ``endpoint-setting`` extensions.

A door meets a setting with a message in hand, which is too late to find a spelling mistake; so names and values are held
against this table when members are imported, and ``docs/operations.md`` is written from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from fhir_mappings.hl7v2.context import DateForm
from fhir_mappings.hl7v2.dialects import DIALECTS
from fhir_mappings.hl7v2.profile import is_profile
from fhir_mappings.hl7v2.zfields import is_table as is_z_table
from hub import acknowledged, alert_limits, breaker, line_rate
from hub.delivery import MOST_CONNECTIONS, is_retry_rule
from hub.endpoint_setting import SWITCH, Setting, is_charset, is_network, is_switch, is_text, is_zone
from hub.file_doors import are_fingerprints, is_secret_name
from hub.priors import is_rule
from hub.v2_out import ACK_OUT, ACKNOWLEDGEMENTS, EVENTS, IMAGING_ORDERS, LAB_ORDERS, are_events

_FINGERPRINT_OR_NAME = re.compile(r"[0-9A-Za-z:._/@*-]{1,255}")


def _are_services(value: str) -> bool:
    return SERVICES.issuperset(value.split())


#: Words of the setting ``services``; the DIMSE door's table of services is held against them by a test.
SERVICES = frozenset({"echo", "store", "find", "move", "get", "commitment", "mpps", "worklist", "ups", "availability"})

_ALL = ("dicom", "mllp", "fhir", "fhir-message", "dicom-web")
SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="cidr",
        kinds=_ALL,
        fits=lambda value: all(map(is_network, value.split())),
        words="networks like 10.1.0.0/16, with spaces between",
        meaning="允许来自的网段；缺省为任意 / networks it may call from; any when absent",
    ),
    Setting(
        name=alert_limits.SETTING,
        kinds=_ALL,
        fits=alert_limits.fits,
        words="limits like queue-age-s=600 queue-depth=500 errors=10 unmapped=off idle=8, with spaces between",
        meaning="告警门限，未写者取全局设置 / from when its queue or feed is worth an alert; else as the settings say",
    ),
    Setting(
        name="charset-in",
        kinds=("mllp", "dicom", "dicom-web"),
        fits=is_charset,
        words="a character set like GB18030",
        meaning="对方实际使用的字符集，优先于其声明 / the character set it really writes, whatever it declares",
    ),
    Setting(
        name="ae-title",
        kinds=("dicom",),
        fits=lambda value: 1 <= len(value) <= 16 and value.isascii() and value.isprintable(),
        words="1 to 16 characters",
        meaning="AE 名称，若地址中没有 / AE title, where the address has none",
    ),
    Setting(
        name="services",
        kinds=("dicom",),
        fits=_are_services,
        words=f"words of {', '.join(sorted(SERVICES))}, with spaces between",
        meaning="该 AE 可用的 DIMSE 服务；缺省为全部 / DIMSE services its AE may use; all when absent",
    ),
    Setting(
        name="tls",
        kinds=("dicom", "mllp"),
        fits={"required", "optional"}.__contains__,
        words="required or optional",
        meaning="`required` 拒绝未加密的连接 / refuses open lines",
    ),
    Setting(
        name="certificates",
        kinds=("dicom", "mllp"),
        fits=lambda value: bool(value.split()) and all(map(_FINGERPRINT_OR_NAME.fullmatch, value.split())),
        words="SHA-256 fingerprints or names of certificates, with spaces between",
        meaning="可代表该成员的客户端证书（同时要求 TLS）/ client certificates that may speak for it; implies `tls`",
    ),
    Setting(
        name="push",
        kinds=("dicom",),
        fits=is_switch,
        words=SWITCH,
        meaning="把委托其阅片的检查推送给该 AE / send it the studies that it is asked to read",
    ),
    Setting(
        name="commitment",
        kinds=("dicom",),
        fits=is_switch,
        words=SWITCH,
        meaning="推送后向该 AE 请求存储承诺 / ask it for storage commitment after a delivery",
    ),
    Setting(
        name="commitment-report",
        kinds=("dicom",),
        fits={"same-association", "new-association"}.__contains__,
        words="same-association or new-association",
        meaning="存储承诺结果的回报方式；缺省看是否有地址 / where it awaits reports; by default as it has an address or not",
    ),
    Setting(
        name=line_rate.SETTING,
        kinds=("dicom",),
        fits=line_rate.is_line_rate,
        words="kilobits a second like 2000, or with a window like 2000 mon-fri 08:00-18:00",
        meaning="向该 AE 发送影像（投递、C-MOVE、C-GET）的最高速率（kbit/s），可限定时段（成员时区）；缺省不限 / how fast images go to it by delivery, C-MOVE or C-GET, always or in a window by the member's clock; as fast as the line when absent",
    ),
    Setting(
        name="availability",
        kinds=("dicom",),
        fits=is_switch,
        words=SWITCH,
        meaning="检查到齐后通知该 AE / tell it of complete studies (Instance Availability Notification)",
    ),
    Setting(
        name="priors",
        kinds=("dicom",),
        fits=is_rule,
        words="a rule like modality=CT,MR months=24 max=3 via=get on=acceptance show=task",
        meaning=(
            "从该 AE 调取既往检查的规则；`on=acceptance` 在阅片被接受时自动调取，`show=task` 在任务期间给阅片方看 /"
            " which earlier studies are fetched from it; by itself when a reading is accepted, and shown to its reader"
            " while the Task is open, if it says so"
        ),
    ),
    Setting(
        name="sending-application",
        kinds=("mllp",),
        fits=is_text,
        words="MSH-3 as it writes it",
        meaning="对方写的 MSH-3；缺省为任意 / MSH-3 that it writes; any when absent",
    ),
    Setting(
        name="sending-facility",
        kinds=("mllp",),
        fits=is_text,
        words="MSH-4 as it writes it",
        meaning="对方写的 MSH-4 / MSH-4 that it writes",
    ),
    Setting(
        name="dialect",
        kinds=("mllp",),
        fits=DIALECTS.__contains__,
        words=f"one of {', '.join(sorted(DIALECTS))}",
        meaning=f"HL7 方言：{'、'.join(f'`{name}`' for name in sorted(DIALECTS))} / how it writes HL7 v2",
    ),
    Setting(
        name="z-fields",
        kinds=("mllp",),
        fits=is_z_table,
        words="rows like ZPI-3=Patient.maritalStatus, with spaces between",
        meaning="自定义段（Z 段）字段对应的 FHIR 元素 / which FHIR element each field of its own segments is",
    ),
    Setting(
        name="dates",
        kinds=("mllp",),
        fits=get_args(DateForm).__contains__,
        words=" or ".join(get_args(DateForm)),
        meaning=(
            "对方日期的写法：`compact` 为标准写法（缺省），`separated` 亦读 `1948-02-12`、`2025/6/13 8:30:00` /"
            " `compact` is the standard's form (default); `separated` also reads dates with dashes or slashes"
        ),
    ),
    Setting(
        name="time-zone",
        kinds=("mllp",),
        fits=is_zone,
        words="a zone like Asia/Shanghai",
        meaning="对方时间的时区 / zone of times without an offset",
    ),
    Setting(
        name="charset-out",
        kinds=("mllp",),
        fits=is_charset,
        words="a character set like GB18030",
        meaning="发给对方的字符集 / character set of what is sent to it",
    ),
    Setting(
        name="msh-18-out",
        kinds=("mllp",),
        fits=lambda value: value == "" or is_text(value),
        words="MSH-18 as it expects it, or nothing",
        meaning="发给对方的 MSH-18；可为空 / MSH-18 of what is sent to it; may be empty",
    ),
    Setting(
        name="version-out",
        kinds=("mllp",),
        fits=lambda value: re.fullmatch(r"2\.[1-9](\.[0-9])?", value) is not None,
        words="a version like 2.4",
        meaning="发给对方的 MSH-12 / MSH-12 of what is sent to it",
    ),
    Setting(
        name="send",
        kinds=("mllp",),
        fits=are_events,
        words=f"events of {', '.join(sorted(EVENTS))}, with spaces between, of ADT^A08 and ADT^A31 only one, and -MDM^T11 for documents without withdrawals",
        meaning="其可见病历变化时发给对方的消息；缺省为无；要 MDM 者亦收 T11（撤回），除非写 `-MDM^T11` / messages that tell it of changes to records it may see; none when absent; MDM^T11 comes with any MDM, and S13 to S17 and S26 with SIU^S12",
    ),
    Setting(
        name="lab-orders",
        kinds=("mllp",),
        fits=lambda value: value.upper() in LAB_ORDERS,
        words=" or ".join(LAB_ORDERS),
        meaning="发给对方的检验申请用何消息；缺省 ORM^O01 / message in which it takes orders for laboratory work; ORM^O01 when absent",
    ),
    Setting(
        name="imaging-orders",
        kinds=("mllp",),
        fits=lambda value: value.upper() in IMAGING_ORDERS,
        words=" or ".join(IMAGING_ORDERS),
        meaning="发给对方的影像申请用何消息；缺省 ORM^O01 / message in which it takes orders for imaging; ORM^O01 when absent",
    ),
    Setting(
        name="zds",
        kinds=("mllp",),
        fits=is_switch,
        words=SWITCH,
        meaning="影像申请是否带 ZDS（StudyInstanceUID）；缺省否 / whether orders for imaging carry ZDS with the Study Instance UID; not when absent",
    ),
    Setting(
        name="order-answers",
        kinds=("mllp",),
        fits=is_switch,
        words=SWITCH,
        meaning="其每条医嘱、处方、发药和给药的结果是否应答（ORR、ORL、ORG、ORI；ORP、RRE、RRD、RRA）；缺省否 / whether it is told what became of each of its orders and prescriptions, in the form of each; not when absent",
    ),
    Setting(
        name="validate-out",
        kinds=("mllp",),
        fits={"off", "warn", "reject"}.__contains__,
        words="off, warn or reject",
        meaning="发送前按标准校验消息；`reject` 不合格则不发送 / messages are validated before they are sent; off when absent",
    ),
    Setting(
        name="validate",
        kinds=("mllp",),
        fits={"off", "warn", "reject"}.__contains__,
        words="off, warn or reject",
        meaning="收到的消息按标准与 `profile` 校验：`warn` 应答后校验并记录，`reject` 应答前校验、不合格拒收；缺省 off / received messages are judged: after the answer, or before it; off when absent",
    ),
    Setting(
        name="profile",
        kinds=("mllp",),
        fits=is_profile,
        words='JSON like {"ADT": {"segments": ["PV1"], "required": ["PID-5"], "lengths": {"PID-3.1": 20}, "tables": {"PV1-2": ["I", "O"]}}}',
        meaning="该接口约定的消息规范（JSON），与 `validate` 同用 / what this feed promises beyond the standard, judged with `validate`",
    ),
    Setting(
        name="ack",
        kinds=("mllp",),
        fits={"processed", "stored", "kept"}.__contains__,
        words="processed, stored or kept",
        meaning="何时应答：处理完（缺省）或已保存；`kept` 处理完才应答，已保存而无法处理的也应答 AA，在枢纽留作失败待办（用于收到 AE 不断重发的系统） / answered when processed (the default) or when stored; `kept`: when processed, and AA also to what is kept but cannot be applied, which then stands as failed here (for senders that repeat an AE for ever)",
    ),
    Setting(
        name=ACK_OUT,
        kinds=("mllp",),
        fits=ACKNOWLEDGEMENTS.__contains__,
        words="original, accept or both",
        meaning="发给对方的消息要求何种应答（MSH-15、MSH-16）：`original` 均空，只要一个应用应答；`accept` 只要接收应答；`both` 两种都要；缺省：申请、转诊和预约两种都要，其余只要接收应答 / acknowledgements that it is asked for: `original` leaves both fields empty, so that one answer comes from its application; when absent both for requests, referrals and bookings, and its receipt for the rest",
    ),
    Setting(
        name="marker",
        kinds=("mllp",),
        fits=lambda value: re.fullmatch(r"\.[A-Za-z0-9]{1,16}", value) is not None,
        words="a suffix like .done",
        meaning="文件夹收发：表示文件已写完的空文件后缀 / of a folder: suffix of the empty file that says that a file is whole",
    ),
    Setting(
        name="quiet-s",
        kinds=("mllp",),
        fits=lambda value: re.fullmatch(r"\d{1,4}(\.\d)?", value) is not None,
        words="seconds like 5",
        meaning="文件夹收取：文件多久不变视为写完；缺省 5 / of a folder: a file is whole when unchanged this long; 5 when absent",
    ),
    Setting(
        name="host-key",
        kinds=("mllp",),
        fits=are_fingerprints,
        words="fingerprints like SHA256:..., as ssh-keygen -lf prints them, with spaces between",
        meaning="SFTP 收发：服务器主机密钥指纹，必填 / of an SFTP folder: its server's host key, without which nothing is sent or taken",
    ),
    Setting(
        name="credential",
        kinds=("mllp",),
        fits=is_secret_name,
        words="the name of a file in the secrets' folder: letters, digits, ._-",
        meaning="SFTP 收发：`secrets_dir` 中私钥或口令文件名，必填 / of an SFTP folder: file of the private key or password in `secrets_dir`",
    ),
    Setting(
        name="batch-out",
        kinds=("mllp",),
        fits={"batch", "file"}.__contains__,
        words="batch or file",
        meaning="文件夹投放：消息外加 BHS/BTS（`file` 再加 FHS/FTS） / of a folder: what is dropped stands in BHS and BTS, and in FHS and FTS too",
    ),
    Setting(
        name=acknowledged.SETTING,
        kinds=("mllp",),
        fits=acknowledged.is_wait,
        words="seconds like 3600",
        meaning="文件夹投放：等待对方在 `in` 放回应答文件（MSA-2 即 MSH-10）的秒数，超时重投；缺省不等待 / of a folder: a message dropped counts when an acknowledgement file came back into `in`, and is tried again when none does in that time; not awaited when absent",
    ),
    Setting(
        name=acknowledged.WAIT_SETTING,
        kinds=("mllp",),
        fits=acknowledged.is_short_wait,
        words="seconds from 0 to 300",
        meaning="收到 CA 后，在同一连接上等待应用应答（MSH-16 为 `AL`）的秒数；一次未等到即不再等，直到它又在该连接上应答；缺省 5 / how long its application's answer is awaited on the connection that has brought CA, where MSH-16 asks for it; one wait for nothing ends the waiting until such an answer comes; 5 when absent",
    ),
    Setting(
        name="patient-queries",
        kinds=("mllp",),
        fits=is_switch,
        words=SWITCH,
        meaning="是否应答患者查询（PDQ、PIX）；缺省否 / whether queries for patients (PDQ, PIX) are answered; not when absent",
    ),
    Setting(
        name="order-queries",
        kinds=("mllp",),
        fits=is_switch,
        words=SWITCH,
        meaning="是否应答医嘱状态查询（OSQ^Q06）；缺省否 / whether queries for the status of orders (OSQ^Q06) are answered; not when absent",
    ),
    Setting(
        name="processing-ids",
        kinds=("mllp",),
        fits=lambda value: {"P", "T", "D"}.issuperset(value.upper().split()),
        words="values of MSH-11 (P, T, D), with spaces between",
        meaning="接受的 MSH-11；缺省只有 P / values of MSH-11 that are taken; P alone when absent",
    ),
    Setting(
        name="retry-ae",
        kinds=("mllp",),
        fits=is_switch,
        words=SWITCH,
        meaning="对方应答 AE 时是否重试；缺省是 / whether AE is tried again; it is when absent",
    ),
    Setting(
        name="retry",
        kinds=_ALL,
        fits=is_retry_rule,
        words="parts like first-s=5 longest-s=600 attempts=8 max-age-s=259200, with spaces between",
        meaning=(
            "重试规则：首次与最长间隔、对方已应答时的次数、投递多久后转死信；缺省取全局设置且永不过期 / how it is tried again:"
            " first and longest wait, attempts that it answered, age of a dead letter; else as the settings say, and never too old"
        ),
    ),
    Setting(
        name=breaker.SETTING,
        kinds=_ALL,
        fits=breaker.is_breaker_rule,
        words="parts like failures=3 window-s=300, with spaces between",
        meaning="连续多少次（在多少秒内）连不上后暂停该端点；缺省 3 次、300 秒 / after how many failures in a row to reach it, within how many seconds, all for it rests; 3 within 300 when absent",
    ),
    Setting(
        name="connections",
        kinds=("mllp",),
        fits=lambda value: value.isascii() and value.isdigit() and 1 <= int(value) <= MOST_CONNECTIONS,
        words=f"a number from 1 to {MOST_CONNECTIONS}",
        meaning="同时使用的连接数，同一患者仍按顺序；缺省 1 / connections at a time, each patient's messages still in order; 1 when absent",
    ),
    Setting(
        name="message",
        kinds=("fhir", "fhir-message"),
        fits=is_switch,
        words=SWITCH,
        meaning="发送 FHIR 消息而不是事务 / send messages instead of transactions",
    ),
    Setting(
        name="bearer",
        kinds=("fhir", "fhir-message"),
        fits=is_text,
        words="a bearer token",
        meaning="访问对方 FHIR 服务的令牌 / token for its FHIR server",
    ),
)
_BY_NAME: Mapping[str, Setting] = {one.name: one for one in SETTINGS}


def checked(kind: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the settings of an endpoint of *kind*, switches as truth values.

    Raises:
        ValueError: with the name that is unknown for that kind, or whose value cannot be used, and with words that help.
    """
    for name, value in settings.items():
        known = _BY_NAME.get(name)
        if known is None or kind not in known.kinds:
            names = ", ".join(sorted(one.name for one in SETTINGS if kind in one.kinds))
            raise ValueError(name, f"Use one of {names}.")
        if not known.fits(str(value)):
            raise ValueError(name, f"Give {known.words}.")
        yield name, str(value).lower() == "true" if known.is_switch else value

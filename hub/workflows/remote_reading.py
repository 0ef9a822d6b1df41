"""Remote reading 远程影像诊断: a hospital sends images, another writes, reviews, signs and returns the report.

Two persons sign: who writes does not review. Images that cannot be read go back; work nobody writes goes back to the
pool; overdue work is escalated and never expires by itself. IHE XRR-WD has the same roles without the hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.workflows import guards as g
from hub.workflows import submission as s
from hub.workflows.effect_kinds import CreateTask, EndTask, Notify, Send, SetStatus, Sign, When
from hub.workflows.order_changes import order_changes
from hub.workflows.table import Edit, Require, Role, State, Timer, Transition, Visibility, Workflow

#: urn:iso-astm:E1762-95:2013, author's signature and verification signature.
AUTHOR = "1.2.840.10065.1.12.1.1"
VERIFICATION = "1.2.840.10065.1.12.1.5"

LEASE_S = 20 * 60
SLA_S = {"stat": 30 * 60, "asap": 2 * 3600, "urgent": 2 * 3600, "routine": 24 * 3600}

_AT_READER = ("submitted", "received", "assigned", "writing", "preliminary", "returned")
_OPEN = (*_AT_READER, "images-incomplete")
_DONE = ("final", "delivered", "amended")
_BEGUN = ("writing", "preliminary", "returned")
_NOT_BEGUN = ("submitted", "received", "images-incomplete", "assigned")
_ALL = ("draft", *_OPEN, *_DONE, "refused", "withdrawn")

_REPORT = Require(element="output", types=("DiagnosticReport",))
_CRITICAL = When(
    condition=g.has_critical_value,
    effects=(
        CreateTask(
            code="critical-value",
            owner_role="requester",
            requester_role="desk",
            priority="stat",
            about="report",
            key_from=g.critical_values,
        ),
    ),
)
_FINAL = (
    SetStatus(resource_type="DiagnosticReport", status="final"),
    SetStatus(resource_type="ServiceRequest", status="completed"),
    Send(message="oru_r01", to_role="requester", control="F"),
    Notify(role="requester"),
    _CRITICAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendStudy:
    """The studies in Task.input go to the AE of *role*'s institution, if it asks for that, while in one of *states*.

    Like a grant, it follows from the state and not from an event, so that no way into the state can forget it. What
    comes late is sent as long as the grant is open; what waits when it closes is not sent.
    """

    role: str
    states: tuple[str, ...]


SEND_STUDIES = (SendStudy(role="desk", states=("assigned", *_BEGUN)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPriors:
    """Earlier studies are fetched for the Task while in one of *states*, if the requester's archive says so.

    Attributes:
        event: adds them to Task.input, where that is wanted too.
    """

    workflow: str
    states: tuple[str, ...]
    event: str


PRIORS = FetchPriors(workflow="remote-reading", states=("assigned", *_BEGUN), event="add-priors")

WORKFLOW = Workflow(
    code="remote-reading",
    version="1",
    title_zh="远程影像诊断",
    title_en="Remote reading",
    steps="imaging-step",
    initial="draft",
    submit="submit",
    service="imaging-read",
    roles={
        "requester": Role(title_zh="申请方", title_en="Requester", party="requester"),
        "desk": Role(
            title_zh="诊断方分诊台",
            title_en="Desk of the reader",
            party="owner",
            functions=frozenset({"desk", "system"}),
        ),
        "writer": Role(
            title_zh="初写医师",
            title_en="Writer",
            party="owner",
            functions=frozenset({"writer", "reviewer"}),
            person=True,
        ),
        "reviewer": Role(
            title_zh="审核医师", title_en="Reviewer", party="owner", functions=frozenset({"reviewer"}), person=True
        ),
        "ris": Role(
            title_zh="诊断方系统", title_en="System of the reader", party="owner", functions=frozenset({"system"})
        ),
        "hub": Role(title_zh="枢纽", title_en="Hub", party="hub"),
    },
    states={
        "draft": State(task_status="draft", business_status="draft"),
        "submitted": State(task_status="requested", business_status="submitted"),
        "received": State(task_status="received", business_status="submitted"),
        "images-incomplete": State(task_status="on-hold", business_status="images-incomplete"),
        "assigned": State(task_status="accepted", business_status="assigned"),
        "writing": State(task_status="in-progress", business_status="writing"),
        "preliminary": State(task_status="in-progress", business_status="preliminary"),
        "returned": State(task_status="in-progress", business_status="returned"),
        "final": State(task_status="completed", business_status="final", terminal=True),
        "delivered": State(task_status="completed", business_status="delivered", terminal=True),
        "amended": State(task_status="completed", business_status="amended", terminal=True),
        "refused": State(task_status="rejected", business_status="refused", terminal=True),
        "withdrawn": State(task_status="cancelled", business_status="withdrawn", terminal=True),
    },
    transitions=(
        Transition(
            event="submit",
            title_zh="提交申请",
            title_en="Submit",
            sources=("draft",),
            to="submitted",
            by=("requester",),
            require=(Require(element="input", types=("ImagingStudy",)),),
            guards=(
                g.request_has_patient,
                g.request_is_open,
                g.images_are_available,
                s.agreement_in_force,
                s.service_is_on,
                s.requester_is_in_office,
                s.patient_is_identified_unless_by_message,
            ),
            advice=(
                s.patient_is_identified,
                s.diagnosis_or_reason_given,
                s.purpose_given,
                s.summary_given,
                s.consent_given,
                s.is_not_repeated,
            ),
            effects=(
                SetStatus(resource_type="ServiceRequest", status="active"),
                Send(message="orm_o01", to_role="desk", control="NW"),
                Notify(role="desk"),
            ),
        ),
        Transition(
            event="receive",
            title_zh="影像齐，待分配",
            title_en="Receive",
            sources=("submitted",),
            to="received",
            by=("desk", "writer", "hub"),
        ),
        Transition(
            event="return-images",
            title_zh="退回补图",
            title_en="Return for images",
            sources=("received", "assigned", "writing"),
            to="images-incomplete",
            by=("desk", "writer"),
            reasons="image-return-reason",
            assigns="pool",
            effects=(Notify(role="requester"),),
        ),
        Transition(
            event="resupply",
            title_zh="已补图",
            title_en="Images supplied",
            sources=("images-incomplete",),
            to="received",
            by=("requester", "hub"),
            guards=(g.images_are_available,),
            effects=(Notify(role="desk"),),
        ),
        Transition(
            event="assign",
            title_zh="分配",
            title_en="Assign",
            sources=("submitted", "received", "assigned"),
            to="assigned",
            by=("desk",),
            assigns="assignee",
            restarts=("lease",),
            effects=(Send(message="orr_o02", to_role="requester", control="OK"),),
        ),
        Transition(
            event="claim",
            title_zh="领取",
            title_en="Claim",
            sources=("submitted", "received"),
            to="assigned",
            by=("writer",),
            assigns="actor",
            effects=(Send(message="orr_o02", to_role="requester", control="OK"),),
        ),
        Transition(
            event="release",
            title_zh="放回待分配",
            title_en="Give back",
            sources=("assigned", "writing", "returned"),
            to="received",
            by=("desk", "writer"),
            assigns="pool",
        ),
        Transition(
            event="lease-expired",
            title_zh="超时未书写，放回待分配",
            title_en="Not written in time, back to the pool",
            sources=("assigned", "writing"),
            to="received",
            by=("hub",),
            assigns="pool",
            effects=(Notify(role="desk"),),
        ),
        Transition(
            event="start",
            title_zh="开始书写",
            title_en="Start writing",
            sources=("assigned", "returned"),
            to="writing",
            by=("writer",),
            guards=(g.acts_as_assignee, g.is_not_held),
            restarts=("lease",),
        ),
        Transition(
            event="save",
            title_zh="暂存",
            title_en="Save",
            sources=("writing",),
            to=None,
            by=("writer",),
            guards=(g.acts_as_assignee,),
            restarts=("lease",),
        ),
        Transition(
            event=PRIORS.event,
            title_zh="补充既往影像",
            title_en="Add earlier studies",
            sources=PRIORS.states,
            to=None,
            by=("hub",),
            require=(Require(element="input", types=("ImagingStudy",)),),
            guards=(g.priors_are_the_patients,),
        ),
        Transition(
            event="preliminary",
            title_zh="初写完成并签名",
            title_en="Written and signed",
            sources=("writing", "returned"),
            to="preliminary",
            by=("writer",),
            require=(_REPORT,),
            guards=(g.acts_as_assignee, g.report_is_preliminary, g.report_answers_request),
            records="writer",
            effects=(
                SetStatus(resource_type="DiagnosticReport", status="preliminary"),
                Sign(role="writer", purpose=AUTHOR),
            ),
        ),
        Transition(
            event="return-report",
            title_zh="审核退回",
            title_en="Return the report",
            sources=("preliminary",),
            to="returned",
            by=("reviewer",),
            reasons="report-return-reason",
            guards=(g.is_not_the_writer,),
            effects=(Notify(role="desk"),),
        ),
        Transition(
            event="final",
            title_zh="审核签发",
            title_en="Review, sign and issue",
            sources=("preliminary",),
            to="final",
            by=("reviewer",),
            require=(_REPORT,),
            guards=(g.writer_has_signed, g.is_not_the_writer, g.report_is_ready, g.report_answers_request),
            records="reviewer",
            clears=("cancel-asked", g.ON_HOLD),
            effects=(Sign(role="reviewer", purpose=VERIFICATION), *_FINAL),
        ),
        Transition(
            event="import-final",
            title_zh="诊断方系统回传终审报告",
            title_en="Final report from the reader's own system",
            sources=_AT_READER,
            to="final",
            by=("ris",),
            require=(_REPORT,),
            guards=(g.report_is_final, g.report_answers_request, g.two_signatories_named),
            clears=("cancel-asked", g.ON_HOLD),
            messages=("report.final",),
            effects=_FINAL,
        ),
        Transition(
            event="deliver",
            title_zh="已回传申请方",
            title_en="Delivered to the requester",
            sources=("final", "amended"),
            to="delivered",
            by=("hub", "requester"),
            after_end=True,
        ),
        Transition(
            event="amend",
            title_zh="修订报告",
            title_en="Amend the report",
            sources=_DONE,
            to="amended",
            by=("reviewer", "ris"),
            require=(_REPORT,),
            reasons="report-amendment-reason",
            guards=(g.report_is_amended, g.report_answers_request),
            messages=("report.corrected",),
            after_end=True,
            effects=(
                Sign(role="reviewer", purpose=VERIFICATION),
                Send(message="oru_r01", to_role="requester", control="C"),
                Notify(role="requester"),
                _CRITICAL,
            ),
        ),
        Transition(
            event="refuse",
            title_zh="拒诊",
            title_en="Refuse",
            sources=("submitted", "received", "images-incomplete", "assigned"),
            to="refused",
            by=("desk", "writer"),
            reasons="reading-refusal-reason",
            effects=(Send(message="orr_o02", to_role="requester", control="UA"), Notify(role="requester")),
        ),
        Transition(
            event="withdraw",
            title_zh="撤回",
            title_en="Withdraw",
            sources=("draft", "submitted", "received", "images-incomplete", "assigned"),
            to="withdrawn",
            by=("requester",),
            messages=("order.cancel",),
            effects=(
                SetStatus(resource_type="ServiceRequest", status="revoked"),
                Send(message="orm_o01", to_role="desk", control="CA"),
                Notify(role="desk"),
                Send(message="orr_o02", to_role="requester", control="CR"),
            ),
        ),
        *order_changes("desk", before=_NOT_BEGUN, begun=_BEGUN),
        Transition(
            event="ask-withdraw",
            title_zh="请求撤回",
            title_en="Ask to withdraw",
            sources=_BEGUN,
            to=None,
            by=("requester",),
            reasons="cancellation-reason",
            guards=(g.cancel_is_not_asked,),
            marks=("cancel-asked",),
            messages=("order.cancel",),
            effects=(CreateTask(code="abort", owner_role="desk", requester_role="requester"), Notify(role="desk")),
        ),
        Transition(
            event="confirm-withdraw",
            title_zh="同意撤回",
            title_en="Confirm the withdrawal",
            sources=_BEGUN,
            to="withdrawn",
            by=("desk",),
            guards=(g.cancel_was_asked,),
            clears=("cancel-asked",),
            effects=(
                EndTask(code="abort", status="completed"),
                SetStatus(resource_type="ServiceRequest", status="revoked"),
                Notify(role="requester"),
                Send(message="orr_o02", to_role="requester", control="CR"),
            ),
        ),
        Transition(
            event="decline-withdraw",
            title_zh="不同意撤回",
            title_en="Decline the withdrawal",
            sources=_BEGUN,
            to=None,
            by=("desk",),
            guards=(g.cancel_was_asked,),
            clears=("cancel-asked",),
            effects=(
                EndTask(code="abort", status="rejected"),
                Notify(role="requester"),
                Send(message="orr_o02", to_role="requester", control="UC"),
            ),
        ),
        Transition(
            event="overdue",
            title_zh="超时升级",
            title_en="Overdue, escalated",
            sources=_AT_READER,
            to=None,
            by=("hub",),
            marks=("overdue",),
            effects=(
                CreateTask(code="escalation", owner_role="desk", requester_role="requester", priority="urgent"),
                Notify(role="desk"),
                Notify(role="requester"),
            ),
        ),
    ),
    timers=(
        Timer(
            name="lease",
            title_zh="领取时限",
            title_en="Lease",
            states=("assigned", "writing"),
            event="lease-expired",
            due=g.after(LEASE_S, "lease"),
        ),
        Timer(
            name="sla",
            title_zh="出报告时限",
            title_en="Turnaround",
            states=_AT_READER,
            event="overdue",
            due=g.by_priority(SLA_S, "turnaround"),
        ),
    ),
    visibility=(
        Visibility(role="requester", states=_ALL, scope="task-closure"),
        Visibility(role="desk", states=_OPEN, scope="task-closure", after_days=30),
    ),
    edits=(
        Edit(
            role="requester",
            states=("draft",),
            elements=frozenset(
                {"input", "owner", "description", "priority", "restriction", "reasonCode", "reasonReference", "note"}
            ),
        ),
        Edit(
            role="requester",
            states=("submitted", "received", "images-incomplete", "assigned"),
            elements=frozenset({"input", "description", "priority", "note"}),
        ),
        Edit(role="writer", states=("writing", "returned"), elements=frozenset({"output", "note"})),
    ),
)

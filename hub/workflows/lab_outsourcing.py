"""Outsourced laboratory work 第三方检验: the specimen is followed, results come back, critical ones raise an alarm.

A laboratory that answers only by ORU^R01 (HL7 v2 chapter 7) never reports receipt or testing, so results are taken in
every state before the end. A late partial result never undoes a final one: no event takes it there.
"""

from __future__ import annotations

from hub.workflows import guards as g
from hub.workflows import submission as s
from hub.workflows.effect_kinds import CreateTask, EndTask, Notify, Send, SetStatus, When
from hub.workflows.order_changes import order_changes
from hub.workflows.table import Edit, Require, Role, State, Timer, Transition, Visibility, Workflow

TURNAROUND_S = {"stat": 2 * 3600, "asap": 6 * 3600, "urgent": 6 * 3600, "routine": 48 * 3600}

_ON_THE_WAY = ("ordered", "collected", "packed", "picked-up")
_BEFORE_TESTING = (*_ON_THE_WAY, "received")
_TESTING = ("testing", "tech-verified", "preliminary")
_OPEN = (*_BEFORE_TESTING, *_TESTING)
_DONE = ("final", "corrected")
_ALL = ("draft", *_OPEN, *_DONE, "specimen-rejected", "specimen-failed", "cancelled")

_REPORT = Require(element="output", types=("DiagnosticReport",))
_SPECIMEN = Require(element="input", types=("Specimen",))
_CRITICAL = When(
    condition=g.has_critical_value,
    effects=(
        CreateTask(
            code="critical-value",
            owner_role="requester",
            requester_role="lab",
            priority="stat",
            about="report",
            key_from=g.critical_values,
        ),
        Notify(role="requester"),
    ),
)
_REJECTED = (
    SetStatus(resource_type="Specimen", status="unsatisfactory"),
    CreateTask(code="recollect", owner_role="requester", requester_role="lab", about="request"),
    Notify(role="requester"),
)

WORKFLOW = Workflow(
    code="lab-outsourcing",
    version="1",
    title_zh="第三方检验",
    title_en="Outsourced laboratory work",
    steps="lab-step",
    initial="draft",
    submit="order",
    service="lab",
    roles={
        "requester": Role(title_zh="送检方", title_en="Requester", party="requester"),
        "lab": Role(title_zh="检验方", title_en="Laboratory", party="owner"),
        "hub": Role(title_zh="枢纽", title_en="Hub", party="hub"),
    },
    states={
        "draft": State(task_status="draft", business_status="ordered"),
        "ordered": State(task_status="requested", business_status="ordered"),
        "collected": State(task_status="requested", business_status="collected"),
        "packed": State(task_status="requested", business_status="packed"),
        "picked-up": State(task_status="received", business_status="picked-up"),
        "received": State(task_status="accepted", business_status="received"),
        "testing": State(task_status="in-progress", business_status="testing"),
        "tech-verified": State(task_status="in-progress", business_status="tech-verified"),
        "preliminary": State(task_status="in-progress", business_status="preliminary"),
        "final": State(task_status="completed", business_status="final", terminal=True),
        "corrected": State(task_status="completed", business_status="corrected", terminal=True),
        "specimen-rejected": State(task_status="rejected", business_status="specimen-rejected", terminal=True),
        "specimen-failed": State(task_status="failed", business_status="specimen-rejected", terminal=True),
        "cancelled": State(task_status="cancelled", business_status="cancelled", terminal=True),
    },
    transitions=(
        Transition(
            event="order",
            title_zh="开单送检",
            title_en="Order",
            sources=("draft",),
            to="ordered",
            by=("requester",),
            guards=(
                g.request_has_patient,
                g.request_is_open,
                s.agreement_in_force,
                s.service_is_on,
                s.requester_is_in_office,
                s.patient_is_identified_unless_by_message,
            ),
            # A laboratory needs the diagnosis, not the story of the illness, and consent is given for the treatment.
            advice=(s.patient_is_identified, s.diagnosis_or_reason_given, s.purpose_given, s.is_not_repeated),
            messages=("order.new",),
            effects=(
                SetStatus(resource_type="ServiceRequest", status="active"),
                Send(message="orm_o01", to_role="lab", control="NW"),
                Notify(role="lab"),
            ),
        ),
        *order_changes("lab", before=_BEFORE_TESTING, begun=_TESTING),
        Transition(
            event="collect",
            title_zh="采样",
            title_en="Collect",
            sources=("ordered",),
            to="collected",
            by=("requester",),
            require=(_SPECIMEN,),
            effects=(SetStatus(resource_type="Specimen", status="available"),),
        ),
        Transition(
            event="pack",
            title_zh="打包",
            title_en="Pack",
            sources=("collected",),
            to="packed",
            by=("requester",),
            effects=(Notify(role="lab"),),
        ),
        Transition(
            event="pick-up",
            title_zh="揽收",
            title_en="Pick up",
            sources=("collected", "packed"),
            to="picked-up",
            by=("lab", "requester"),
        ),
        Transition(
            event="receive",
            title_zh="接收，核对合格",
            title_en="Receive",
            sources=_ON_THE_WAY,
            to="received",
            by=("lab",),
            effects=(Send(message="orr_o02", to_role="requester", control="OK"),),
        ),
        Transition(
            event="reject-specimen",
            title_zh="拒收标本",
            title_en="Reject the specimen",
            sources=_BEFORE_TESTING,
            to="specimen-rejected",
            by=("lab",),
            reasons="specimen-rejection-reason",
            messages=("order.rejected", "order.cancelled"),
            effects=(Send(message="orr_o02", to_role="requester", control="UA"), *_REJECTED),
        ),
        Transition(
            event="fail-specimen",
            title_zh="检测中发现标本不合格",
            title_en="Specimen found unfit while testing",
            sources=_TESTING,
            to="specimen-failed",
            by=("lab",),
            reasons="specimen-rejection-reason",
            clears=("cancel-asked",),
            effects=_REJECTED,
        ),
        Transition(
            event="start",
            title_zh="开始检测",
            title_en="Start testing",
            sources=("received",),
            to="testing",
            by=("lab",),
            guards=(g.is_not_held,),
        ),
        Transition(
            event="verify",
            title_zh="技术审核",
            title_en="Verify technically",
            sources=("testing", "preliminary"),
            to="tech-verified",
            by=("lab",),
        ),
        Transition(
            event="preliminary",
            title_zh="部分报告",
            title_en="Report in part",
            sources=_OPEN,
            to="preliminary",
            by=("lab",),
            require=(_REPORT,),
            guards=(g.report_is_preliminary, g.report_answers_request),
            messages=("report.preliminary",),
            effects=(Send(message="oru_r01", to_role="requester", control="P"), _CRITICAL),
        ),
        Transition(
            event="final",
            title_zh="发布报告",
            title_en="Issue the report",
            sources=_OPEN,
            to="final",
            by=("lab",),
            require=(_REPORT,),
            guards=(g.report_is_final, g.results_are_final, g.report_answers_request),
            clears=("cancel-asked", g.ON_HOLD),
            messages=("report.final",),
            effects=(
                SetStatus(resource_type="ServiceRequest", status="completed"),
                Send(message="oru_r01", to_role="requester", control="F"),
                Notify(role="requester"),
                _CRITICAL,
            ),
        ),
        Transition(
            event="correct",
            title_zh="更正报告",
            title_en="Correct the report",
            sources=_DONE,
            to="corrected",
            by=("lab",),
            require=(_REPORT,),
            guards=(g.report_is_amended, g.report_answers_request),
            messages=("report.corrected",),
            after_end=True,
            effects=(
                Send(message="oru_r01", to_role="requester", control="C"),
                Notify(role="requester"),
                _CRITICAL,
            ),
        ),
        Transition(
            event="reissue",
            title_zh="重发或补充报告",
            title_en="Issue the report again",
            sources=_DONE,
            to=None,
            by=("lab",),
            require=(_REPORT,),
            guards=(g.report_is_issued, g.report_answers_request),
            messages=("report.final",),
            after_end=True,
            effects=(Send(message="oru_r01", to_role="requester", control="F"), _CRITICAL),
        ),
        Transition(
            event="cancel",
            title_zh="撤销",
            title_en="Cancel",
            sources=("draft", *_BEFORE_TESTING),
            to="cancelled",
            by=("requester",),
            messages=("order.cancel",),
            effects=(
                SetStatus(resource_type="ServiceRequest", status="revoked"),
                Send(message="orm_o01", to_role="lab", control="CA"),
                Notify(role="lab"),
                Send(message="orr_o02", to_role="requester", control="CR"),
            ),
        ),
        Transition(
            event="ask-cancel",
            title_zh="请求撤销",
            title_en="Ask to cancel",
            sources=_TESTING,
            to=None,
            by=("requester",),
            reasons="cancellation-reason",
            guards=(g.cancel_is_not_asked,),
            marks=("cancel-asked",),
            messages=("order.cancel",),
            effects=(CreateTask(code="abort", owner_role="lab", requester_role="requester"), Notify(role="lab")),
        ),
        Transition(
            event="confirm-cancel",
            title_zh="同意撤销",
            title_en="Confirm the cancellation",
            sources=_TESTING,
            to="cancelled",
            by=("lab",),
            guards=(g.cancel_was_asked,),
            clears=("cancel-asked",),
            messages=("order.cancelled",),
            effects=(
                EndTask(code="abort", status="completed"),
                SetStatus(resource_type="ServiceRequest", status="revoked"),
                Notify(role="requester"),
                Send(message="orr_o02", to_role="requester", control="CR"),
            ),
        ),
        Transition(
            event="decline-cancel",
            title_zh="不同意撤销",
            title_en="Decline the cancellation",
            sources=_TESTING,
            to=None,
            by=("lab",),
            guards=(g.cancel_was_asked,),
            clears=("cancel-asked",),
            messages=("order.cancel-refused",),
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
            sources=_OPEN,
            to=None,
            by=("hub",),
            marks=("overdue",),
            effects=(
                CreateTask(code="escalation", owner_role="lab", requester_role="requester", priority="urgent"),
                Notify(role="lab"),
                Notify(role="requester"),
            ),
        ),
    ),
    timers=(
        Timer(
            name="turnaround",
            title_zh="出报告时限",
            title_en="Turnaround",
            states=_OPEN,
            event="overdue",
            due=g.by_priority(TURNAROUND_S, "turnaround"),
        ),
    ),
    visibility=(
        Visibility(role="requester", states=_ALL, scope="task-closure"),
        Visibility(role="lab", states=_OPEN, scope="task-closure", after_days=30),
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
            role="requester", states=_BEFORE_TESTING, elements=frozenset({"input", "description", "priority", "note"})
        ),
        Edit(role="lab", states=_TESTING, elements=frozenset({"output", "note"})),
    ),
)

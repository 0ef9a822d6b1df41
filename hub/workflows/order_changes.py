"""Changes to an order on its way: held, released, modified (HL7 v2 table 0119: HD, RL, XO and RP), the same in every table of orders.

What the performer has not begun may be held and changed, and the performer learns of it where it got the order. Begun work is not:
no event is open to that, and who commands it is told why. A hold is a flag of the Task and no state, because the specimen or
the images go on arriving meanwhile; it stops only the beginning of the work. Results that come all the same are kept.
"""

from __future__ import annotations

from hub.workflows import guards as g
from hub.workflows.effect_kinds import Notify, Send, SetStatus
from hub.workflows.table import Transition


def order_changes(performer: str, *, before: tuple[str, ...], begun: tuple[str, ...]) -> tuple[Transition, ...]:
    """Return the transitions by which the requester changes its order and *performer* declines that.

    Args:
        before: states in which the work was sent and has not begun.
        begun: states in which it goes on; a hold that results have overtaken is taken off there as well.
    """
    held = SetStatus(resource_type="ServiceRequest", status="on-hold")
    active = SetStatus(resource_type="ServiceRequest", status="active")

    def ordered(event: str, zh: str, en: str, kind: str, control: str, answer: str) -> Transition:
        return Transition(
            event=event,
            title_zh=zh,
            title_en=en,
            sources=(*before, *begun) if control == "RL" else before,
            to=None,
            by=("requester",),
            marks=(g.ON_HOLD,) if control == "HD" else (),
            clears=(g.ON_HOLD,) if control == "RL" else (),
            messages=(kind,),
            effects=(
                *{"HD": (held,), "RL": (active,)}.get(control, ()),
                Send(message="orm_o01", to_role=performer, control=control),
                Notify(role=performer),
                Send(message="orr_o02", to_role="requester", control=answer),
            ),
        )

    def declined(event: str, zh: str, en: str, kind: str, answer: str) -> Transition:
        return Transition(
            event=event,
            title_zh=zh,
            title_en=en,
            sources=(*before, *begun),
            to=None,
            by=(performer,),
            guards={"UH": (g.is_held,), "UR": (g.is_not_held,)}.get(answer, ()),
            marks=(g.ON_HOLD,) if answer == "UR" else (),
            clears=(g.ON_HOLD,) if answer == "UH" else (),
            messages=(kind,),
            effects=(
                *{"UH": (active,), "UR": (held,)}.get(answer, ()),
                Notify(role="requester"),
                Send(message="orr_o02", to_role="requester", control=answer),
            ),
        )

    return (
        ordered("modify", "修改申请", "Modify", "order.modified", "XO", "XR"),
        ordered("hold", "暂停申请", "Hold", "order.hold", "HD", "HR"),
        ordered("release-hold", "恢复申请", "Release the hold", "order.release", "RL", "OR"),
        declined("decline-modify", "不接受修改", "Decline the change", "order.modify-refused", "UX"),
        declined("decline-hold", "不能暂停", "Decline the hold", "order.hold-refused", "UH"),
        declined("decline-release", "不能恢复", "Decline the release", "order.release-refused", "UR"),
    )

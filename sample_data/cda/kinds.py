"""What each kind of WS/T 500-2016 says in the samples; ``make.py`` writes it as documents. Persons and events are invented.

A section is (key of ``SECTIONS``, what stands in it). An entry is ``name`` or ``name@DE number`` with a text, with a number and
its unit, or one of :class:`Code` (diagnosis), :class:`Deed` (operation or procedure), :class:`Drug`, :class:`Lab`; ``Table`` is narrative,
``Picture`` an embedded part and ``Below`` a section inside the section.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Code(NamedTuple):
    """A diagnosis of ICD-10."""

    name: str
    code: str
    display: str


class Deed(NamedTuple):
    """An operation of ICD-9-CM-3; *mood* RQO where it is only planned."""

    code: str
    display: str
    when: str
    mood: str = "EVN"


class Drug(NamedTuple):
    """A medicine: dose, unit, route (code, words) and frequency."""

    name: str
    dose: str
    unit: str
    route: tuple[str, str]
    often: str
    total: str


class Lab(NamedTuple):
    """A result with its LOINC code, reference range and judgement."""

    loinc: str
    name: str
    value: str
    unit: str
    low: str
    high: str
    flag: str = "N"


class Table(NamedTuple):
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Picture(NamedTuple):
    id: str
    caption: str


class Below(NamedTuple):
    key: str
    parts: tuple[Any, ...]


class Kind(NamedTuple):
    """One sample: who keeps it, its file name, whom it is about, who signs beside the author, and its sections."""

    house: str
    name: str
    person: str
    signers: tuple[str, ...]
    body: tuple[tuple[str, tuple[Any, ...]], ...]
    number: tuple[str, str] | None = None
    replaces: bool = False


#: LOINC code and heading of each section; an empty code where WS/T 500 names the section in words alone.
SECTIONS = {
    "problem": ("11450-4", "主要健康问题"),
    "complaint": ("10154-3", "主诉"),
    "present": ("10164-2", "现病史"),
    "past": ("11348-0", "既往史"),
    "allergy": ("48765-2", "过敏史"),
    "family": ("10157-6", "家族史"),
    "social": ("29762-2", "个人史"),
    "body": ("29545-1", "体格检查"),
    "vital": ("8716-3", "生命体征"),
    "lab": ("30954-2", "实验室检查"),
    "diagnosis": ("29548-5", "诊断"),
    "admitted": ("46241-6", "入院诊断"),
    "left": ("11535-2", "出院诊断"),
    "before": ("10219-4", "术前诊断"),
    "drugs": ("10160-0", "用药"),
    "fee": ("48768-6", "费用"),
    "plan": ("18776-5", "治疗计划"),
    "done": ("47519-4", "手术操作"),
    "course": ("8648-8", "住院过程"),
    "orders": ("46209-3", "医嘱"),
    "blood": ("56836-0", "输血"),
    "advice": ("69730-0", "注意事项与指导"),
    "assessment": ("51848-0", "评估"),
    "summary": ("", "病历摘要"),
    "opinion": ("", "意见"),
    "risk": ("", "操作风险"),
    "care": ("", "护理"),
    "birth": ("", "分娩"),
    "anaesthesia": ("", "麻醉"),
    "material": ("", "高值耗材"),
    "discussion": ("", "讨论内容"),
    "transfer": ("", "转科"),
    "rescue": ("", "抢救"),
    "death": ("", "死亡原因"),
}

VITALS: tuple[Any, ...] = (
    ("体温@DE04.10.186.00", "36.8", "℃"),
    ("脉率@DE04.10.118.00", "82", "次/min"),
    ("呼吸频率@DE04.10.082.00", "18", "次/min"),
    ("收缩压@DE04.10.174.00", "132", "mmHg"),
    ("舒张压@DE04.10.176.00", "78", "mmHg"),
)
APPENDIX = Code("诊断代码@DE05.01.024.00", "K35.9", "急性阑尾炎")
HEART = Code("诊断代码@DE05.01.024.00", "I21.1", "急性下壁心肌梗死")
LABOUR = Code("诊断代码@DE05.01.024.00", "O80.0", "头位顺产")
COUGH = Code("诊断代码@DE05.01.024.00", "J20.9", "急性支气管炎")
OPERATION = Deed("47.01", "腹腔镜阑尾切除术", "20250613100000")
PLANNED = Deed("47.01", "腹腔镜阑尾切除术", "20250613100000", "RQO")
ORAL, VEIN = ("1", "口服"), ("404", "静脉滴注")
CEFURO = Drug("注射用头孢呋辛钠", "1.5", "g", VEIN, "每日两次", "4.5")
_AGREED = (
    ("医疗机构的意见@DE06.00.018.00", "已告知病情、必要性、替代方案和风险。"),
    ("患者的意见@DE06.00.018.00", "已知情，同意。"),
)


def _consent(name: str, deed: str, risk: str, number: str, *more: tuple[str, tuple[Any, ...]]) -> Kind:
    return Kind(
        "KN",
        name,
        "zhou",
        ("patient", "agent"),
        (
            ("before", (APPENDIX,)),
            ("plan", (("拟行操作", deed), ("替代方案@DE06.00.301.00", "保守治疗，密切观察。"))),
            *more,
            ("risk", (("可能出现的意外及风险", risk),)),
            ("opinion", _AGREED),
        ),
        ("2.16.156.10011.1.34", number),
    )


def _note(
    name: str, house: str, person: str, *body: tuple[str, tuple[Any, ...]], signers: tuple[str, ...] = ("senior",)
) -> Kind:
    return Kind(house, name, person, signers, body)


KINDS: dict[str, Kind] = {
    "C0003": _note("observation", "KN", "zheng",
        ("complaint", (("主诉@DE04.01.119.00", "咳嗽伴发热 2 天，加重半日。"),)), ("present", (("现病史@DE02.10.071.00", "受凉后咳嗽，体温最高 38.9 ℃。"),)),
        ("allergy", (("过敏史@DE02.10.022.00", "青霉素皮试阳性。"),)), ("vital", VITALS), ("diagnosis", (COUGH,)),
        ("orders", (Table(("医嘱", "时间"), (("留观，吸氧 2 L/min", "08:30"), ("复查血常规", "14:00"))),))),
    "C0004": Kind("KN", "western_prescription", "zheng", ("pharmacist", "dispenser"), (
        ("diagnosis", (COUGH,)),
        ("drugs", (Drug("阿奇霉素片", "0.5", "g", ORAL, "每日一次", "1.5"), Drug("盐酸氨溴索片", "30", "mg", ORAL, "每日三次", "270"), ("处方有效天数@DE06.00.294.00", "3", "天"))),
        ("fee", (("处方药品金额@DE07.00.004.00", "38.60", "元"),))), ("2.16.156.10011.1.20", "RX20250611001")),
    "C0005": Kind("YL", "chinese_prescription", "li", ("pharmacist", "dispenser"), (
        ("diagnosis", (Code("诊断代码@DE05.01.024.00", "J20.9", "急性支气管炎"), ("中医证候@DE05.10.130.00", "风寒袭肺证"), ("治则治法@DE06.00.300.00", "疏风散寒，宣肺止咳"))),
        ("drugs", (Drug("炙麻黄", "6", "g", ORAL, "每日一剂，分两次", "18"), Drug("苦杏仁", "9", "g", ORAL, "每日一剂，分两次", "27"), Drug("炙甘草", "6", "g", ORAL, "每日一剂，分两次", "18"), ("煎煮法", "水煎取汁 400 ml，早晚温服"))),
        ("fee", (("处方药品金额@DE07.00.004.00", "52.30", "元"),))), ("2.16.156.10011.1.20", "RX20250612002")),
    "C0008": _note("treatment", "KN", "li", ("diagnosis", (COUGH,)), ("vital", VITALS),
        ("done", (Deed("93.94", "雾化吸入治疗", "20250612093000"), ("处理及指导意见", "每日两次，治疗后漱口。")))),
    "C0009": _note("operation", "KN", "zhou", ("before", (APPENDIX,)),
        ("done", (OPERATION, ("手术经过", "三孔法置入腹腔镜，见阑尾充血肿胀，结扎系膜，切除阑尾。"), ("出血量", "20", "ml"), Table(("器械", "术前", "术后"), (("纱布", "10", "10"), ("缝针", "4", "4"))))),
        ("left", (APPENDIX,)), signers=("senior", "assistant")),
    "C0010": _note("pre_anaesthesia", "KN", "zhou", ("before", (APPENDIX,)), ("vital", VITALS), ("assessment", (("ASA 分级", "II 级"), ("气道评估", "Mallampati II 级，张口度正常。"))),
        ("anaesthesia", (("拟实施麻醉方法@DE06.00.073.00", "气管插管全身麻醉"), ("术前麻醉医嘱", "禁食 8 小时，禁饮 4 小时。")))),
    "C0011": _note("anaesthesia", "KN", "zhou", ("before", (APPENDIX,)), ("anaesthesia", (("麻醉方法@DE06.00.073.00", "气管插管全身麻醉"), Drug("丙泊酚", "120", "mg", VEIN, "诱导一次", "120"), Picture("curve", "麻醉监测曲线"))),
        ("vital", (Table(("时间", "血压 mmHg", "脉率", "SpO2 %"), (("10:00", "128/76", "80", "99"), ("10:15", "112/68", "72", "100"), ("10:30", "118/70", "74", "100"))), *VITALS)), ("done", (OPERATION,))),
    "C0012": _note("post_anaesthesia", "KN", "zhou", ("vital", VITALS), ("anaesthesia", (("麻醉恢复情况", "神志清楚，无恶心呕吐，Steward 评分 6 分。"), ("特殊情况", "无")))),
    "C0013": _note("transfusion", "YL", "li", ("diagnosis", (Code("诊断代码@DE05.01.024.00", "D50.0", "慢性失血性贫血"),)), ("lab", (Lab("718-7", "血红蛋白", "58", "g/L", "115", "150", "LL"),)),
        ("blood", (("输血品种", "去白细胞悬浮红细胞"), ("输血量", "400", "ml"), ("ABO 血型", "A 型"), ("Rh 血型", "阳性"), ("输血反应标志", "否"))), signers=("nurse", "checker")),
    "C0014": _note("labour_waiting", "KN", "sun", ("vital", VITALS), ("birth", (("孕次", "2", "次"), ("产次", "1", "次"), Table(("时间", "宫缩", "胎心", "宫口 cm"), (("02:00", "30s/5min", "142", "2"), ("06:00", "40s/3min", "138", "6"))))), ("plan", (("分娩方式计划", "阴道试产"),))),
    "C0015": _note("vaginal_delivery", "KN", "sun", ("birth", (("胎儿娩出日期时间", "2025-06-13 09:42"), ("产后出血量", "210", "ml"), Below("assessment", (("Apgar 1 分钟", "9", "分"), ("Apgar 5 分钟", "10", "分"), ("新生儿体重", "3250", "g"))))), ("diagnosis", (LABOUR,)), signers=("midwife",)),
    "C0016": _note("caesarean", "YL", "sun", ("before", (Code("诊断代码@DE05.01.024.00", "O64.1", "臀先露"),)), ("done", (Deed("74.1", "低位子宫下段剖宫产", "20250614083000"), ("手术经过", "取子宫下段横切口，娩出一女婴。"))), ("birth", (("新生儿体重", "3100", "g"), ("Apgar 1 分钟", "9", "分"))), signers=("assistant", "anaesthetist")),
    "C0017": _note("nursing", "KN", "zhou", ("vital", VITALS), ("care", (("护理等级", "二级护理"), ("护理观察结果", "切口敷料干燥，无渗血。"), ("护理操作", "协助翻身，下床活动指导。"))), signers=("nurse",)),
    "C0018": _note("critical_nursing", "YL", "zhou", ("diagnosis", (HEART,)), ("vital", VITALS), ("care", (Table(("时间", "意识", "心率", "血压"), (("16:00", "清醒", "96", "98/60"), ("17:00", "清醒", "92", "104/62"))), ("护理等级", "特级护理"))), signers=("nurse",)),
    "C0019": _note("operation_nursing", "KN", "zhou", ("done", (OPERATION,)), ("care", (Table(("物品", "术前", "关前", "关后"), (("纱布", "10", "10", "10"), ("缝针", "4", "4", "4"))), ("皮肤情况", "完整"))), signers=("nurse", "scrub")),
    "C0020": _note("vital_signs", "KN", "li", ("vital", (*VITALS, ("体重@DE04.10.188.00", "58.50", "kg"), ("身高@DE04.10.167.00", "158.0", "cm"), Picture("chart", "体温单"))), signers=("nurse",)),
    "C0021": _note("intake_output", "YL", "zhou", ("care", (Table(("项目", "量 ml"), (("饮水", "600"), ("静脉输入", "1500"), ("尿量", "1850"))), ("总入量", "2100", "ml"), ("总出量", "1850", "ml"))), signers=("nurse",)),
    "C0022": _note("consumables", "YL", "zhou", ("done", (Deed("36.07", "药物洗脱冠状动脉支架置入术", "20250612180000"),)), ("material", (("材料名称", "冠状动脉药物洗脱支架系统（测试）"), ("产品编码", "TEST-STENT-0001"), ("数量", "1", "个"), ("植入性耗材标志", "是")))),
    "C0023": _note("admission_assessment", "KN", "zhou", ("complaint", (("主诉@DE04.01.119.00", "转移性右下腹痛 10 小时。"),)), ("vital", VITALS), ("allergy", (("过敏史标志@DE02.10.023.00", "false", "BL"),)), ("assessment", (("自理能力", "Barthel 指数 85 分"), ("跌倒风险", "中度"), ("压疮风险", "Braden 评分 20 分"))), signers=("nurse",)),
    "C0024": _note("care_plan", "KN", "zhou", ("diagnosis", (APPENDIX,)), ("care", (("护理问题", "急性疼痛：与炎症刺激有关"), ("护理措施", "半卧位，遵医嘱解痉，评估疼痛评分。"), Below("plan", (("预期目标", "24 小时内疼痛评分不高于 3 分"),)))), signers=("nurse",)),
    "C0025": _note("discharge_guidance", "KN", "zhou", ("left", (APPENDIX,)), ("assessment", (("出院情况", "切口甲级愈合，体温正常。"),)), ("advice", (("饮食指导", "清淡饮食"), ("复诊指导", "术后 2 周门诊复查"))), signers=("nurse",)),
    "C0026": _consent("operation_consent", "腹腔镜阑尾切除术", "出血、感染、邻近器官损伤、中转开腹。", "ZQ001", ("done", (PLANNED,))),
    "C0027": _consent("anaesthesia_consent", "气管插管全身麻醉", "反流误吸、过敏、心律失常。", "ZQ002", ("anaesthesia", (("拟实施麻醉方法@DE06.00.073.00", "气管插管全身麻醉"),))),
    "C0028": _consent("transfusion_consent", "输注去白细胞悬浮红细胞", "发热、过敏、溶血反应、经血传播疾病。", "ZQ003", ("lab", (Lab("718-7", "血红蛋白", "62", "g/L", "130", "175", "L"),))),
    "C0029": _consent("special_consent", "CT 增强扫描", "碘对比剂过敏、外渗、肾功能损害。", "ZQ004"),
    "C0030": _note("critical_notice", "YL", "zhou", ("diagnosis", (HEART,)), ("summary", (("病情概括及主要抢救措施", "急性下壁心肌梗死，血压偏低，已扩容并行急诊介入。"), ("通知目的", "病情危重，随时可能发生恶性心律失常。"))), signers=("agent", "senior")),
    "C0031": _consent("other_consent", "留置中心静脉导管", "血肿、气胸、导管相关感染。", "ZQ005"),
    "C0032": _note("front_page", "KN", "zhou", ("admitted", (APPENDIX,)), ("left", (APPENDIX, ("入院病情", "有"), ("离院方式", "医嘱离院"))), ("allergy", (("药物过敏", "无记录"),)), ("done", (OPERATION, ("切口愈合等级", "II/甲"))),
        ("fee", (("住院总费用", "8642.50", "元"), Table(("费用", "金额 元"), (("西药费", "1860.40"), ("手术治疗费", "3200.00"), ("检查检验费", "2150.10"), ("其他", "1432.00"))))), signers=("senior", "coder")),
    "C0033": _note("chinese_front_page", "QH", "li", ("admitted", (("中医病名", "骨痹"), ("中医证候@DE05.10.130.00", "肝肾亏虚证"))), ("left", (Code("诊断代码@DE05.01.024.00", "M17.0", "原发性双侧膝关节病"), ("中医病名", "骨痹"))), ("done", (Deed("93.39", "中医推拿", "20250613150000"),)), ("fee", (("住院总费用", "4310.00", "元"), ("中医治疗费", "1680.00", "元"))), signers=("senior", "coder")),
    "C0034": _note("admission", "KN", "zhou", ("complaint", (("主诉@DE04.01.119.00", "转移性右下腹痛 10 小时。"),)), ("present", (("现病史@DE02.10.071.00", "脐周痛转移至右下腹，恶心，无呕吐。"),)), ("past", (("疾病史@DE02.10.099.00", "高血压 5 年，规律服药。"), Below("allergy", (("过敏史@DE02.10.022.00", "否认药物食物过敏。"),)))), ("family", (("家族史", "否认遗传病史。"),)), ("social", (("个人史", "吸烟 20 年，每日 10 支。"),)), ("vital", VITALS), ("body", (("专科情况", "麦氏点压痛、反跳痛阳性。"),)), ("lab", (Lab("6690-2", "白细胞计数", "14.20", "10*9/L", "3.5", "9.5", "H"),)), ("admitted", (APPENDIX,)), ("plan", (("治疗计划", "完善术前准备，急诊手术。"),))),
    "C0035": _note("day_stay", "KN", "li", ("complaint", (("主诉@DE04.01.119.00", "头晕 3 小时。"),)), ("admitted", (Code("诊断代码@DE05.01.024.00", "R42", "头晕"),)), ("course", (("诊疗过程描述@DE06.00.296.00", "监测血压，改善循环，症状缓解。"),)), ("left", (Code("诊断代码@DE05.01.024.00", "I10", "原发性高血压"),)), ("advice", (("出院医嘱", "低盐饮食，每日监测血压。"),))),
    "C0036": _note("day_death", "YL", "wu", ("complaint", (("主诉@DE04.01.119.00", "突发意识丧失 30 分钟。"),)), ("admitted", (HEART,)), ("course", (("诊疗过程描述@DE06.00.296.00", "心肺复苏 60 分钟，未恢复自主心律。"),)), ("death", (Code("死亡诊断@DE05.01.024.00", "I46.9", "心脏停搏"), ("死亡日期时间", "2025-06-13 03:20")))),
    "C0037": _note("first_progress", "KN", "zhou", ("complaint", (("主诉@DE04.01.119.00", "转移性右下腹痛 10 小时。"),)), ("present", (("病例特点", "老年男性，急性起病，麦氏点压痛。"),)), ("diagnosis", (APPENDIX, ("诊断依据", "症状、体征与白细胞升高。"), ("鉴别诊断", "输尿管结石、消化道穿孔。"))), ("plan", (CEFURO, ("诊疗计划", "禁食，抗感染，急诊手术。")))),
    "C0038": _note("daily_progress", "KN", "zhou", ("course", (("住院病程", "术后第一天，肛门已排气，切口无渗出。"),)), ("vital", VITALS), ("orders", (("医嘱内容", "改流质饮食，继续抗感染。"),))),
    "C0039": _note("ward_round", "YL", "zhou", ("course", (("查房记录", "胸痛未再发，双肺呼吸音清。"),)), ("opinion", (("上级医师意见", "继续双联抗血小板，加用他汀。"),)), ("orders", (Drug("阿托伐他汀钙片", "20", "mg", ORAL, "每晚一次", "600"),))),
    "C0040": _note("difficult_case", "YL", "zhou", ("summary", (("病历摘要@DE06.00.182.00", "反复发热 3 周，多种抗菌药无效。"),)), ("discussion", (("讨论意见", "考虑成人斯蒂尔病，完善铁蛋白。"), ("主持人总结意见", "停用经验性抗菌药，风湿科会诊。")))),
    "C0041": _note("handover", "KN", "zhou", ("admitted", (APPENDIX,)), ("course", (("目前情况", "术后第二天，生命体征平稳。"),)), ("orders", (("交班注意事项", "注意引流量，明日复查血常规。"),)), signers=("successor",)),
    "C0042": _note("ward_transfer", "YL", "zhou", ("admitted", (HEART,)), ("transfer", (("转出科室", "急诊科"), ("转入科室", "心血管内科"), ("转科目的", "急诊介入术后监护。"))), ("plan", (("转入诊疗计划", "持续心电监护，复查肌钙蛋白。"),)), signers=("successor",)),
    "C0043": _note("stage_summary", "YL", "zhou", ("admitted", (HEART,)), ("course", (("诊疗过程描述@DE06.00.296.00", "介入术后两周，心功能 II 级。"),)), ("plan", (("今后治疗方案", "心脏康复，双联抗血小板一年。"),))),
    "C0044": _note("rescue", "YL", "zhou", ("diagnosis", (HEART, Code("诊断代码@DE05.01.024.00", "I49.0", "心室颤动"))), ("rescue", (("抢救措施", "电除颤 200 J 一次，恢复窦性心律。"), Deed("99.62", "心脏电复律", "20250612171000"), Drug("盐酸胺碘酮注射液", "150", "mg", VEIN, "立即", "150"))), signers=("nurse", "senior")),
    "C0045": Kind("YL", "consultation", "zhou", ("consultant",), (
        ("summary", (("病历摘要@DE06.00.182.00", "急性下壁心肌梗死介入术后，血糖控制不佳。"),)), ("diagnosis", (HEART,)), ("lab", (Lab("4548-4", "糖化血红蛋白", "9.1", "%", "4.0", "6.0", "H"),)),
        ("opinion", (("会诊类型@DE06.00.319.00", "院内普通会诊"), ("会诊原因@DE06.00.039.00", "血糖控制不佳"), ("会诊目的@DE06.00.214.00", "调整降糖方案"), ("会诊意见@DE06.00.018.00", "予甘精胰岛素 12 U 睡前皮下注射，监测七点血糖。")))), ("2.16.156.10011.1.24", "HZ20250613001")),
    "C0046": _note("pre_operation", "KN", "zhou", ("summary", (("病历摘要@DE06.00.182.00", "转移性右下腹痛 10 小时入院。"),)), ("before", (APPENDIX,)), ("plan", (PLANNED, ("手术指征@DE06.00.340.00", "急性阑尾炎，有手术指征。"), ("术前准备@DE06.00.271.00", "备皮、禁食、皮试。")))),
    "C0047": _note("pre_operation_discussion", "KN", "zhou", ("before", (APPENDIX,)), ("discussion", (("讨论意见", "急诊腹腔镜手术，备中转开腹。"), ("讨论结论", "同意手术。"))), ("plan", (PLANNED,)), signers=("anaesthetist", "senior")),
    "C0048": _note("post_operation", "KN", "zhou", ("done", (OPERATION,)), ("diagnosis", (APPENDIX,)), ("plan", (("注意事项", "去枕平卧 6 小时，观察生命体征。"), CEFURO))),
    "C0049": _note("discharge", "KN", "zhou", ("admitted", (APPENDIX,)), ("course", (("诊疗过程描述@DE06.00.296.00", "急诊行腹腔镜阑尾切除术，恢复良好。"),)), ("left", (APPENDIX,)), ("advice", (("出院医嘱", "休息两周，门诊随访。"),))),
    "C0050": _note("death", "YL", "wu", ("admitted", (HEART,)), ("course", (("诊疗过程描述@DE06.00.296.00", "心源性休克，抢救无效。"),)), ("death", (Code("直接死亡原因@DE05.01.024.00", "I46.9", "心脏停搏"), ("死亡日期时间", "2025-06-13 03:20"), ("家属是否同意尸体解剖标志", "否")))),
    "C0051": _note("death_discussion", "YL", "wu", ("death", (Code("死亡诊断@DE05.01.024.00", "I46.9", "心脏停搏"),)), ("discussion", (("死亡讨论记录", "死亡原因明确，抢救及时。"), ("主持人总结意见", "加强高危胸痛分诊。")))),
    "C0052": _note("inpatient_orders", "KN", "zhou", ("vital", (("体重@DE04.10.188.00", "68.0", "kg"),)), ("orders", (CEFURO, Table(("医嘱", "类别", "开始"), (("二级护理", "长期", "06-13 12:00"), ("血常规", "临时", "06-14 06:00"))), ("医嘱备注", "皮试阴性"))), signers=("nurse", "senior")),
    "C0053": Kind("KN", "discharge_summary", "zhou", ("senior",), (("admitted", (APPENDIX,)), ("lab", (Lab("6690-2", "白细胞计数", "7.60", "10*9/L", "3.5", "9.5"),)), ("course", (("诊疗过程描述@DE06.00.296.00", "腹腔镜阑尾切除术后恢复顺利。"), OPERATION)), ("left", (APPENDIX, ("治疗结果", "治愈"))), ("advice", (("出院医嘱", "两周后复查。"), Drug("头孢呋辛酯片", "0.25", "g", ORAL, "每日两次", "1.5")))), None, True),
}  # fmt: skip

"""Chinese for words that OHIF's own translation leaves out, by its namespace (``zh`` of ``@ohif/i18n``).

A word that is also there in OHIF's own table takes its place; all other words of that table stay.
"""

from __future__ import annotations

#: Keys are OHIF's, most of them English sentences; all of them stand in its ``en-US`` table or in its program.
WORDS: dict[str, dict[str, str]] = {
    "Common": {
        # The list's times, as moment writes them (https://momentjs.com/docs/#/displaying/format/).
        "localTimeFormat": "HH:mm",
    },
    "DatePicker": {"Start": "开始", "End": "结束"},
    "ErrorBoundary": {"Show Details": "查看详情"},
    "Header": {"Appearance": "外观"},
    "InvestigationalUseDialog": {
        "for investigational use only": "仅供研究使用（非医疗器械） for investigational use only",
        "Learn more about OHIF Viewer": "OHIF Viewer",
        "Confirm and hide": "知道了",
    },
    "MeasurementTable": {
        "No, do not ask again": "否，不再询问",
        "Track measurements for this series?": "要跟踪该序列的测量吗？",
        "Rename": "重命名",
        "Duplicate": "复制",
        "Change Color": "更改颜色",
        "Lock": "锁定",
        "Unlock": "解锁",
        "Hide": "隐藏",
        "Show": "显示",
        "Create SR": "生成结构化报告",
        "empty": "（空）",
    },
    # What is wrong with a series: it decides whether a measurement may be believed.
    "Messages": {
        "Display Set Messages": "序列提示",
        "1": "序列中没有有效的图像。",
        "2": "序列缺少位置信息。",
        "3": "序列不能重建为三维容积。",
        "4": "多帧图像没有像素间距，不能测量。",
        "5": "多帧图像没有方向信息。",
        "6": "多帧图像没有位置信息。",
        "7": "序列缺少图像。",
        "8": "序列层间距不均匀。",
        "9": "各帧的尺寸不一致。",
        "10": "各帧的颜色分量数不一致。",
        "11": "各帧的方向不一致。",
        "12": "序列的位置信息不一致。",
        "13": "不支持显示此序列。",
        "14": "不支持 SOP 类 {{ sopClassUid }}。",
        "15": "序列缺少 SOP 类 UID，请检查文件。",
    },
    "SegmentationPanel": {
        "Add Segment": "添加分割段",
        "Add segment": "添加分割段",
        "Add segmentation": "添加分割",
        "Labelmap": "标签图",
        "Labelmap tools": "标签图工具",
        "Labelmap Segmentations": "标签图分割",
        "Contour": "轮廓",
        "Contour tools": "轮廓工具",
        "Contour Segmentations": "轮廓分割",
        "Segmentation": "分割",
        "Segmentations": "分割",
        "Segmentation not supported": "不支持此分割",
        "Opacity": "不透明度",
        "Border": "边框",
        "Show": "显示",
        "Fill": "填充",
        "Outline": "轮廓线",
        "Fill & Outline": "填充与轮廓线",
        "Fill Only": "仅填充",
        "Outline Only": "仅轮廓线",
        "Display inactive segmentations": "显示未激活的分割",
        "Delete": "删除",
        "Rename": "重命名",
        "Size": "大小",
        "No segmentations available": "没有分割",
        "Not available on the current viewport": "当前视图不可用",
        "Add segment to enable this tool": "先添加分割段才能使用此工具",
        "No description": "无描述",
    },
    "StudyBrowser": {
        "Thumbnail Double Click": "打开序列",
        "The selected display sets could not be added to the viewport.": "该序列不能作为图像显示。",
    },
    "StudyList": {"AccessionNumber": "检查号", "ClearFilters": "清空条件", "Studies": "项检查"},
    "UserPreferencesModal": {
        "Language": "语言",
        "Select language": "选择语言",
        "Hotkeys": "快捷键",
        "Zoom": "缩放",
        "Zoom In": "放大",
        "Zoom Out": "缩小",
        "Zoom to Fit": "适合窗口",
        "Rotate Right": "向右旋转",
        "Rotate Left": "向左旋转",
        "Flip Horizontally": "水平翻转",
        "Flip Vertically": "垂直翻转",
        "Cine": "电影播放",
        "Invert": "反相",
        "Next Image Viewport": "下一视口",
        "Previous Image Viewport": "上一视口",
        "Previous Series": "上一序列",
        "Next Series": "下一序列",
        "Next Stage": "下一阶段",
        "Previous Stage": "上一阶段",
        "Next Image": "下一图像",
        "Previous Image": "上一图像",
        "First Image": "首幅图像",
        "Last Image": "末幅图像",
        "Reset": "复位",
        "Cancel Measurement": "取消测量",
        "W/L Preset 1": "窗宽窗位预设 1",
        "W/L Preset 2": "窗宽窗位预设 2",
        "W/L Preset 3": "窗宽窗位预设 3",
        "W/L Preset 4": "窗宽窗位预设 4",
        "Delete Annotation": "删除标注",
        "Accept Preview": "接受预览",
        "Reject Preview": "放弃预览",
        "Undo": "撤销",
        "Redo": "重做",
        "Interpolate Scroll": "插值滚动",
        "Increase Brush Size": "增大画笔",
        "Decrease Brush Size": "减小画笔",
        "Eraser": "橡皮",
        "Brush": "画笔",
        "Add New Segment": "添加分割段",
    },
}

#: Lines of OHIF's program that are written in English without a key, and what stands there instead: Chinese first.
PHRASES: tuple[tuple[str, str], ...] = (
    ("'Multiple Patients' : 'Patient'", "'多位患者 Patients' : '患者 Patient'"),
    (
        "id: 'no-hydrate',\n      type: 'secondary',\n      text: 'No',",
        "id: 'no-hydrate',\n      type: 'secondary',\n      text: '否 No',",
    ),
    (
        "id: 'yes-hydrate',\n      type: 'primary',\n      text: 'Yes',",
        "id: 'yes-hydrate',\n      type: 'primary',\n      text: '是 Yes',",
    ),
    ("title: 'Data Source Connection Error',", "title: '枢纽连接失败 No connection to the hub',"),
    ('"Error: ", e.message)', '"列表未更新，所列可能与条件不符。The list was not updated. (", e.message, ")")'),
    (
        '"Please ensure the following data source is configured correctly or is running:"',
        '"请检查网络，稍后重试；仍不成功请联系管理员。Check the network and try again, or ask an operator: "',
    ),
    ('}, "Retry")))\n          });', '}, "重试 Retry")))\n          });'),
    (
        '"One or more of the requested studies are not available at this time."',
        '"检查不存在，或您无权查看。The study does not exist, or you may not see it."',
    ),
    ("\"Return to the\", ' ', ", ""),
    # Presentation states and key images, in the list of series.
    ("title: 'Thumbnail Double Click',", "title: '打开序列 Open series',"),
    (
        "message: 'The selected display sets could not be added to the viewport.',",
        "message: '该序列不能作为图像显示。This series cannot be shown as images.',",
    ),
    ("`[${ValueType} is not supported]`", "`（${ValueType}，此处不显示 not shown here）`"),
    ('}, "study list"), \' \', "to select a different study to view.")', '}, "返回检查列表 Back to the list"))'),
    # These four are looked up in a table that has no such words.
    *(
        (
            f"const {name} = i18n_src/* [\"default\"].t */.A.t('{old}');",
            f"const {name} = '{new}';",
        )
        for name, old, new in (
            (
                "hydrateSEGMessage",
                "Do you want to open this Segmentation?",
                "要打开这个分割吗？ Open this segmentation?",
            ),
            ("hydrateRTMessage", "Do you want to open this Segmentation?", "要打开这个轮廓吗？ Open these contours?"),
            (
                "hydrateSRMessage",
                "Do you want to continue tracking measurements for this study?",
                "要继续跟踪此检查的测量吗？ Continue tracking the measurements?",
            ),
            (
                "discardDirtyMessage",
                "There are unsaved measurements. Do you want to save it?",
                "有未保存的测量，要保存吗？ Save the measurements?",
            ),
        )
    ),
)

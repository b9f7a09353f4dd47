import cv2
from common import report


def run(model):
    net = cv2.dnn.readNetFromONNX(model)
    names = net.getUnconnectedOutLayersNames()

    def infer(ids, mask):
        net.setInput(ids, "input_ids")
        net.setInput(mask, "attention_mask")
        return dict(zip(names, net.forward(names)))

    return infer


report(["opencv-python-headless"], run)
